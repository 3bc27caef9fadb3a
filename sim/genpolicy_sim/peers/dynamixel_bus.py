"""Packets of Dynamixel's Protocol 2.0, as a servo receives and sends them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

HEADER = b"\xff\xff\xfd\x00"
STUFFED, PLAIN = b"\xff\xff\xfd\xfd", b"\xff\xff\xfd"
BROADCAST = 0xFE
STATUS = 0x55
ALERT = 0x80
PREFIX = 7  # bytes before the instruction: header, id, length


class Result(IntEnum):
    """Error number of a status packet."""

    OK = 0
    FAILED = 1
    INSTRUCTION = 2
    RANGE = 4
    LENGTH = 5
    LIMIT = 6
    ACCESS = 7


@dataclass(frozen=True)
class Instruction:
    """An instruction packet without its frame."""

    PING: ClassVar[int] = 0x01
    READ: ClassVar[int] = 0x02
    WRITE: ClassVar[int] = 0x03
    REBOOT: ClassVar[int] = 0x08
    SYNC_READ: ClassVar[int] = 0x82
    SYNC_WRITE: ClassVar[int] = 0x83

    servo: int
    code: int
    data: bytes

    def words(self, count: int) -> tuple[int, ...]:
        """The first ``count`` parameters of two bytes."""
        return tuple(int.from_bytes(self.data[2 * i : 2 * i + 2], "little") for i in range(count))


class Receiver:
    """Finds instruction packets in a stream of bytes; what is damaged is passed over."""

    def __init__(self) -> None:
        self._pending = b""

    def packets(self, received: bytes) -> Iterator[Instruction]:
        """The packets that are complete now."""
        self._pending += received
        while True:
            start = self._pending.find(HEADER)
            if start < 0:
                self._pending = self._pending[-3:]  # perhaps the beginning of a header
                return
            self._pending = self._pending[start:]
            if len(self._pending) < PREFIX:
                return
            end = PREFIX + int.from_bytes(self._pending[5:7], "little")
            if len(self._pending) < end and end < 1024:
                return
            packet = self._pending[:end]
            sound = PREFIX + 3 <= end < 1024 and crc(packet[:-2]) == packet[-2:]
            self._pending = self._pending[end if sound else len(HEADER) :]
            if sound:
                body = packet[PREFIX:-2].replace(STUFFED, PLAIN)
                yield Instruction(packet[4], body[0], body[1:])


def status(servo: int, result: Result, data: bytes, alert: bool) -> bytes:
    """A status packet."""
    error = result | (ALERT if alert else 0)
    body = bytes([STATUS, error, *data]).replace(PLAIN, STUFFED)
    packet = HEADER + bytes([servo]) + (len(body) + 2).to_bytes(2, "little") + body
    return packet + crc(packet)


def crc(data: bytes) -> bytes:
    """CRC-16 with polynomial 0x8005, most significant bit first, from 0; low byte first."""
    value = 0
    for byte in data:
        value = (value << 8 & 0xFF00) ^ _CRC[(value >> 8) ^ byte]
    return value.to_bytes(2, "little")


def _crc_of(byte: int) -> int:
    value = byte << 8
    for _ in range(8):
        value = (value << 1 ^ (0x8005 if value & 0x8000 else 0)) & 0xFFFF
    return value


_CRC = tuple(map(_crc_of, range(256)))
