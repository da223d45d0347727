"""The constants of the codec: the specification of `numbers.pxi`, which repeats them for the compiler."""

from typing import Final

__all__ = [
    "BURST_LIMIT",
    "BURST_MEMBERS",
    "BURST_PAUSE",
    "CLOCK_TICKS",
    "CONTROL",
    "CORK_LIMIT",
    "CORK_TIME",
    "FAIR_SHARE",
    "FIN",
    "FLOOD_READ",
    "FRAGMENTED_CONTROL",
    "FRAME_MASKED",
    "FRAME_NOT_MASKED",
    "INVALID_UTF8",
    "IN_PLACE",
    "IN_PLACE_STEP",
    "LENGTH_NOT_MINIMAL",
    "LENGTH_TOP_BIT",
    "LONGEST_DEADLINE",
    "LONG_CONTROL",
    "MASK_BATCH",
    "MAX_EMPTY_FRAGMENTS",
    "MAX_HEADER",
    "MAX_LENGTH",
    "MESSAGE_COST",
    "NOT_TEXT",
    "RESERVED_BITS",
    "RESERVED_OPCODE",
    "RSV1",
    "SEND_CREDIT",
    "TOO_BIG",
    "TOO_MANY_EMPTY_FRAGMENTS",
    "UNCOPIED",
    "UNEXPECTED_CONTINUATION",
    "UNFINISHED_MESSAGE",
    "UNTOUCHED_STEP",
    "UTF8_REJECT",
    "WAITING_BATCH",
]

# The first byte of a frame (RFC 6455, section 5.2). RSV2 and RSV3 are 0b00110000, and the opcode is 0b00001111.

FIN: Final = 0b10000000
RSV1: Final = 0b01000000
CONTROL: Final = 0b00001000
"""The bit of an opcode that distinguishes control frames from data frames (section 5.5)."""

# Errors in the bytes of a peer. `exceptions.py` maps each number to an exception.

RESERVED_BITS: Final = 1
RESERVED_OPCODE: Final = 2
FRAME_NOT_MASKED: Final = 3
FRAME_MASKED: Final = 4
FRAGMENTED_CONTROL: Final = 5
LONG_CONTROL: Final = 6
LENGTH_NOT_MINIMAL: Final = 7
LENGTH_TOP_BIT: Final = 8
TOO_BIG: Final = 9
UNEXPECTED_CONTINUATION: Final = 10
UNFINISHED_MESSAGE: Final = 11
INVALID_UTF8: Final = 12
TOO_MANY_EMPTY_FRAGMENTS: Final = 13

UTF8_REJECT: Final = 1
"""The state of bytes that cannot become UTF-8."""

MAX_LENGTH: Final = 2**63 - 1
"""Bytes of the largest payload (section 5.2)."""
MAX_HEADER: Final = 14
"""Bytes of the largest header."""
MAX_EMPTY_FRAGMENTS: Final = 1024
"""Frames without payload that one message may have."""

# Thresholds.

IN_PLACE: Final = 65536
"""Bytes of a payload that are missing at least if it is received straight into its message."""
IN_PLACE_STEP: Final = 262144
"""Bytes of the largest such read. They are unmasked, or checked for UTF-8, while they are in the cache."""
UNTOUCHED_STEP: Final = 1048576
"""Bytes of the largest such read of a payload that is neither unmasked nor checked. Each read costs a system call."""
UNCOPIED: Final = 8192
"""Bytes of the smallest payload that is sent without a copy, as a chunk behind its header."""
MASK_BATCH: Final = 64
"""The number of masks that a writer draws at a time."""
CORK_LIMIT: Final = 16384
"""Bytes that are gathered at most before they are written, so that the peer can start to process them."""
WAITING_BATCH: Final = 64
"""The number of messages that a dispatcher takes from the waiting ones at a time."""
CORK_TIME: Final = 8
"""Milliseconds after which gathered bytes are written."""
BURST_LIMIT: Final = 65536
"""Bytes of a burst that may wait for one connection."""
BURST_MEMBERS: Final = 16
"""Receivers of a broadcast from which a burst begins. With fewer, its callback may cost more than it saves."""
BURST_PAUSE: Final = 31
"""Broadcasts without a burst behind them, at most, after bursts that have gathered nothing."""
CLOCK_TICKS: Final = 64
"""Ticks of the clock in a second."""
LONGEST_DEADLINE: Final = 1000000000
"""Seconds from which a deadline is no limit; the clock counts ticks in an int."""
SEND_CREDIT: Final = 65536
"""Bytes that may be sent between two readings of the clock."""
MESSAGE_COST: Final = 256
"""Bytes that are added to the size of each message where bytes are counted, for the work on any message."""
FAIR_SHARE: Final = 5
"""Milliseconds after which a sender that never waits, or a peer that floods, yields to the loop."""
FLOOD_READ: Final = 16384
"""Bytes of a read, at least and then at most, from a peer that floods: one whose read has taken FAIR_SHARE."""

NOT_TEXT: Final = "bytes that are sent as text must be UTF-8, and these are not: use send_binary, or send a str"
