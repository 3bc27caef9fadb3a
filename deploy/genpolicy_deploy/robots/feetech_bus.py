"""Feetech's serial protocol (STS and SMS series): packets, and transactions with bounded waits.

A packet is ``FF FF id length code parameters checksum``: ``code`` is an instruction on the way
out and the servo's error bits on the way back, ``length`` counts code, parameters and checksum,
and the checksum is the inverted low byte of the sum of all after the header. Numbers are
little-endian, signed ones sign and magnitude.

Why not Feetech's SDK: the two packages on PyPI (feetech-servo-sdk 1.0.0, which LeRobot uses, and
ftservo-python-sdk 2.0.1) install the same module ``scservo_sdk`` with different classes, so a robot
computer can have only one of them. Checksums they verify, but they spin on the port while they
wait, and a lost reply costs 50 ms (a constant that callers of a group read cannot change; LeRobot
patches it into the older one, whose own time-out is broken): five ticks at 100 Hz.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from genpolicy.spec import GenpolicyError

SYNC_READ, SYNC_WRITE = 0x82, 0x83  # all that it takes
BROADCAST = 0xFE
HEADER = b"\xff\xff"
FRAME = 6  # bytes of a packet without parameters
QUIET_S = 0.002  # after a failure: nothing heard for so long, and nothing old is under way

HARDWARE_ERRORS = {
    0x01: "input voltage out of range",
    0x02: "position sensor failed",
    0x04: "overheated",
    0x08: "overcurrent",
    0x10: "angle out of range",
    0x20: "overload",
}


class BusFaultError(Exception):
    """An exchange failed and the next may not: a lost, damaged or late packet, in a sentence."""


class Status(NamedTuple):
    """A servo's answer."""

    servo: int
    error: int  # bits of HARDWARE_ERRORS
    data: bytes


def checksum(body: bytes | bytearray) -> int:
    """Of everything between header and checksum."""
    return ~sum(body) & 0xFF


def encode(servo: int, instruction: int, parameters: bytes = b"") -> bytes:
    """A whole packet."""
    body = bytes((servo, len(parameters) + 2, instruction)) + parameters
    return HEADER + body + bytes((checksum(body),))


def decode(buffer: bytearray, size: int) -> Status | None:
    """Take the next sound status packet with ``size`` bytes of data out of ``buffer``.

    Garbage before it goes too. None while there is no such packet; its beginning stays, so that
    bytes that come later complete it.
    """
    while (start := buffer.find(HEADER)) >= 0:
        del buffer[:start]
        if len(buffer) > 2 and buffer[2] == 0xFF:  # an id is never FF: the header begins later
            del buffer[:1]
            continue
        if len(buffer) > 3 and buffer[3] != size + 2:
            del buffer[:2]
            continue
        if len(buffer) < FRAME + size:
            return None
        packet = bytes(buffer[: FRAME + size])
        if checksum(packet[2:-1]) == packet[-1]:
            del buffer[: FRAME + size]
            return Status(packet[2], packet[4], packet[5:-1])
        del buffer[:2]  # a sound packet may begin inside what looked like one
    if buffer[-1:] == b"\xff":
        del buffer[:-1]
    else:
        buffer.clear()
    return None


def signed(word: int, sign_bit: int) -> int:
    """Number from sign and magnitude."""
    magnitude = word & ((1 << sign_bit) - 1)
    return -magnitude if word >> sign_bit & 1 else magnitude


def error_text(error: int) -> str:
    """The error bits of a status packet in words."""
    known = [text for bit, text in HARDWARE_ERRORS.items() if error & bit]
    return ", ".join(known) or f"error 0x{error:02x}"


class FeetechBus:
    """One serial port with servos on it.

    Args:
        port: device file.
        baud: bits per second.
        reply_s: how long replies may take in all, beyond the time that their bytes do.
    """

    def __init__(self, port: str, baud: int, reply_s: float) -> None:
        self.port = port
        self._baud, self._reply_s = baud, reply_s
        self._serial: Any = None
        self._buffer = bytearray()
        self._unsure = False  # an old reply may still be under way

    def open(self) -> None:
        """Take the port for ourselves.

        Raises:
            GenpolicyError: it does not exist, is taken or not permitted, or pyserial is missing.
        """
        try:
            import serial
        except ImportError as error:
            raise GenpolicyError(
                "Feetech servos need pyserial: pip install 'genpolicy[robots]'"
            ) from error
        self.close()
        try:
            self._serial = serial.Serial(self.port, self._baud, timeout=0, exclusive=True)
        except (OSError, ValueError) as error:
            raise GenpolicyError(
                f"{self.port}: cannot be opened ({error}); check cable, `port` and permissions "
                "(`genpolicy-deploy doctor`)"
            ) from error
        self._buffer.clear()
        self._unsure = True

    def close(self) -> None:
        """Let the port go."""
        if self._serial is not None:
            with contextlib.suppress(OSError):
                self._serial.close()
            self._serial = None

    def sync_read(self, servos: Sequence[int], address: int, size: int) -> dict[int, Status]:
        """Read the same registers of many servos; they answer in turn.

        Returns:
            The sound replies by id: fewer than asked for when packets were lost or damaged.

        Raises:
            BusFaultError: the port takes no more bytes.
            GenpolicyError: the port is gone.
        """
        self._send(encode(BROADCAST, SYNC_READ, bytes((address, size, *servos))))
        return self._receive(servos, size)

    def sync_write(self, servos: Sequence[int], address: int, data: Sequence[bytes]) -> None:
        """Write registers of many servos, none of which answers. Raises as ``sync_read``."""
        parameters = bytearray((address, len(data[0])))
        for servo, values in zip(servos, data, strict=True):
            parameters.append(servo)
            parameters += values
        self._send(encode(BROADCAST, SYNC_WRITE, bytes(parameters)))

    def _send(self, packet: bytes) -> None:
        if self._unsure:
            self._wait_for_quiet()
        if self._wait(0.0):  # what is there answers no question of ours
            self._take()
        self._buffer.clear()
        try:
            sent = os.write(self._descriptor(), packet)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._lost(error) from error
        if sent != len(packet):
            self._unsure = True
            raise BusFaultError(f"{self.port} takes no more bytes")

    def _receive(self, servos: Sequence[int], size: int) -> dict[int, Status]:
        """Sound replies in the order asked for: one out of turn is a late one, of before."""
        bits = 10 * len(servos) * (FRAME + size)
        deadline = time.monotonic() + self._reply_s + bits / self._baud
        replies: dict[int, Status] = {}
        turn = {servo: place for place, servo in enumerate(servos, 1)}
        latest = 0
        while latest < len(servos):
            status = decode(self._buffer, size)
            if status is None:
                if not self._wait(deadline - time.monotonic()):
                    break
                self._take()
            elif turn.get(status.servo, 0) > latest:
                latest = turn[status.servo]
                replies[status.servo] = status
        self._unsure = len(replies) < len(servos)
        return replies

    def _wait_for_quiet(self) -> None:
        deadline = time.monotonic() + self._reply_s
        while self._wait(QUIET_S) and time.monotonic() < deadline:
            self._take()
        self._unsure = False

    def _wait(self, timeout_s: float) -> bool:
        return bool(select.select([self._descriptor()], [], [], max(timeout_s, 0.0))[0])

    def _take(self) -> None:
        """Move what has arrived, which is something, into the buffer."""
        try:
            received = os.read(self._descriptor(), 4096)
        except OSError as error:
            raise self._lost(error) from error
        if not received:  # readable, yet without a byte: hung up
            raise self._lost(None)
        self._buffer += received

    def _descriptor(self) -> int:
        if self._serial is None:
            raise GenpolicyError(f"{self.port}: not connected")
        return self._serial.fileno()

    def _lost(self, error: OSError | None) -> GenpolicyError:
        reason = f" ({error.strerror})" if error is not None else ""
        return GenpolicyError(f"{self.port}: the connection is lost{reason}; check cable and power")
