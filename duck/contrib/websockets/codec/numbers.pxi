# The numbers that both codecs share: part of _speedups.pyx. `numbers.py` is their specification.

cpdef enum:
    FIN = 0x80
    RSV1 = 0x40
    CONTROL = 0x08

    RESERVED_BITS = 1
    RESERVED_OPCODE = 2
    FRAME_NOT_MASKED = 3
    FRAME_MASKED = 4
    FRAGMENTED_CONTROL = 5
    LONG_CONTROL = 6
    LENGTH_NOT_MINIMAL = 7
    LENGTH_TOP_BIT = 8
    TOO_BIG = 9
    UNEXPECTED_CONTINUATION = 10
    UNFINISHED_MESSAGE = 11
    INVALID_UTF8 = 12
    TOO_MANY_EMPTY_FRAGMENTS = 13

    UTF8_REJECT = 1

    MAX_EMPTY_FRAGMENTS = 1024
    MAX_HEADER = 14
    IN_PLACE = 65536
    IN_PLACE_STEP = 262144
    UNCOPIED = 8192
    CORK_LIMIT = 16384
    CORK_TIME = 8
    MASK_BATCH = 64
    INBOX_BATCH = 64
    SEND_CREDIT = 65536
    MESSAGE_COST = 256
    FAIR_SHARE = 5

MAX_LENGTH = INT64_MAX

NOT_TEXT = "bytes that are sent as text must be UTF-8, and these are not: use send_binary, or send a str"
