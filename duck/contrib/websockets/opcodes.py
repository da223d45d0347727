"""The numbers of RFC 6455: opcodes (section 5.2) and close codes (section 7.4)."""

import enum

__all__ = ["CONTROL_OPCODES", "DATA_OPCODES", "CloseCode", "OpCode"]


class OpCode(enum.IntEnum):
    """Type of a frame (RFC 6455, section 5.2)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(enum.IntEnum):
    """Reason for the end of a connection (RFC 6455, section 7.4). 1005, 1006 and 1015 are local and never sent."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


DATA_OPCODES = frozenset({OpCode.CONTINUATION, OpCode.TEXT, OpCode.BINARY})
CONTROL_OPCODES = frozenset({OpCode.CLOSE, OpCode.PING, OpCode.PONG})
