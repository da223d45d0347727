"""The numbers of the RFC, which users have by name."""

import enum

import pytest

from duck.contrib.websockets.opcodes import CONTROL_OPCODES, DATA_OPCODES, CloseCode, OpCode


def test_opcodes_have_the_numbers_of_the_rfc():
    assert {code.name: code.value for code in OpCode} == {
        "CONTINUATION": 0,
        "TEXT": 1,
        "BINARY": 2,
        "CLOSE": 8,
        "PING": 9,
        "PONG": 10,
    }


def test_close_codes_have_the_numbers_of_the_registry():
    assert {code.name: code.value for code in CloseCode} == {
        "NORMAL_CLOSURE": 1000,
        "GOING_AWAY": 1001,
        "PROTOCOL_ERROR": 1002,
        "UNSUPPORTED_DATA": 1003,
        "NO_STATUS_RCVD": 1005,
        "ABNORMAL_CLOSURE": 1006,
        "INVALID_DATA": 1007,
        "POLICY_VIOLATION": 1008,
        "MESSAGE_TOO_BIG": 1009,
        "MANDATORY_EXTENSION": 1010,
        "INTERNAL_ERROR": 1011,
        "SERVICE_RESTART": 1012,
        "TRY_AGAIN_LATER": 1013,
        "BAD_GATEWAY": 1014,
        "TLS_HANDSHAKE": 1015,
    }


def test_every_opcode_is_either_data_or_control():
    for opcode in OpCode:
        assert (opcode in CONTROL_OPCODES) is bool(opcode & 0b1000)
        assert (opcode in DATA_OPCODES) is not (opcode in CONTROL_OPCODES)


@pytest.mark.parametrize("kind", [OpCode, CloseCode])
def test_opcodes_are_numbers(kind):
    assert issubclass(kind, enum.IntEnum)
    for member in kind:
        assert member == int(member)
        assert f"{member}" == str(int(member))
