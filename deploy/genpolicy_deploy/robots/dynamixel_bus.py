"""Dynamixel's Protocol 2.0 through ROBOTIS' SDK, with waits that end and errors that are seen.

The SDK's own port waits at least 34 ms for an answer, by a clock that people may set, and never
sleeps meanwhile; its group reads forget the error byte of each answer. Its Fast Sync Read would
save half a millisecond but does not undo the byte stuffing of what it receives (a velocity of -1
beside certain positions would shift the numbers), and what it sends is not stuffed either: goals
must stay clear of the one sequence of bytes that needs it.
"""

from __future__ import annotations

import contextlib
import os
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from dynamixel_sdk import (
    COMM_RX_TIMEOUT,
    COMM_SUCCESS,
    GroupSyncRead,
    GroupSyncWrite,
    PortHandler,
)
from dynamixel_sdk.protocol2_packet_handler import Protocol2PacketHandler
from serial import SerialException

from genpolicy.spec import GenpolicyError

POLL_S = 0.001
TRIES = 3  # of what has to be confirmed,
PATIENCE_S = 0.05  # each of which may take so long: the arm is not moving
ALERT = 0x80  # bit of an answer's error byte: see the register Hardware Error Status

Register = tuple[int, int]  # address, bytes
T = TypeVar("T")


class BusFaultError(Exception):
    """An exchange failed; the next one may succeed."""


class SilenceError(BusFaultError):
    """The first servo asked did not answer: perhaps nobody hears us."""


class BoundedPort(PortHandler):
    """The SDK's port, which gives up an answer after ``reply_s`` beyond the time of its bits.

    Args:
        port: device file.
        baud: bits per second.
        reply_s: servos' delay and the adapter's.
    """

    ser: Any  # pyserial's port; None before ``open``

    def __init__(self, port: str, baud: int, reply_s: float) -> None:
        super().__init__(port)
        self.baudrate, self.reply_s = baud, reply_s

    def open(self) -> None:
        """Open the port for this process alone.

        Raises:
            GenpolicyError: it is not there, not permitted, in use, or has no such speed.
        """
        try:
            if not self.openPort():
                raise GenpolicyError(
                    f"{self.port_name}: the SDK knows no {self.baudrate} baud: use 57600, 1000000, "
                    "2000000, 3000000 or 4000000, as the servos are set"
                )
            self.ser.timeout, self.ser.exclusive = POLL_S, True
        except (OSError, termios.error) as error:
            raise GenpolicyError(
                f"{self.port_name} cannot be opened ({error}): is the adapter plugged in, the user "
                "in the group 'dialout', and no other program using it?"
            ) from error
        # USB adapters by FTDI otherwise collect bytes for 16 ms; other ports have no such mode.
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            self.ser.set_low_latency_mode(True)

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """Around every call of the SDK.

        Raises:
            GenpolicyError: the port is gone.
        """
        try:
            yield
        except (SerialException, OSError, termios.error, TypeError) as error:
            # TypeError: pyserial, of a port that was closed under it.
            raise GenpolicyError(
                f"{self.port_name} is gone ({error}): plug the adapter in and start again"
            ) from error
        finally:
            self.is_using = False  # the SDK forgets after an exception

    def close(self) -> None:
        """Let go of the port; raises nothing."""
        if self.ser is not None:
            with contextlib.suppress(OSError, termios.error):
                self.closePort()

    def getCurrentTime(self) -> float:  # noqa: N802
        """Milliseconds of a clock that only goes forward."""
        return time.monotonic_ns() / 1e6

    def setPacketTimeout(self, packet_length: int) -> None:  # noqa: N802
        """Begin to wait for ``packet_length`` bytes."""
        self.setPacketTimeoutMillis(self.tx_time_per_byte * packet_length + 1000.0 * self.reply_s)

    def writePort(self, packet: Sequence[int]) -> int:  # noqa: N802
        """Send without waiting; how many bytes were taken."""
        try:
            return os.write(self.ser.fileno(), bytes(packet))
        except BlockingIOError:
            return 0

    def readPort(self, length: int) -> bytes:  # noqa: N802
        """Up to ``length`` bytes; none when the time is up, however much garbage comes."""
        if self.getTimeSinceStart() > self.packet_timeout:
            return b""
        return self.ser.read(length)


class DynamixelBus:
    """Servos on one port.

    Args:
        port: device file.
        baud: bits per second.
        reply_s: how long an answer may take beyond its bits.
        names: {id: name in messages}, of all servos, in the order of every vector.
    """

    def __init__(self, port: str, baud: int, reply_s: float, names: Mapping[int, str]) -> None:
        self.port = BoundedPort(port, baud, reply_s)
        self._reply_s = reply_s
        self._names = names
        self._sdk: Any = Protocol2PacketHandler()

    def sync_read(self, register: Register) -> tuple[list[bytes], list[int]]:
        """A register of all servos, and which servos report a hardware error.

        Raises:
            SilenceError: see there.
            BusFaultError: an answer is lost or damaged.
            GenpolicyError: the port is gone.
        """
        group = GroupSyncRead(self.port, self._sdk, *register)
        for servo in self._names:
            group.addParam(servo)
        values, alerts = [], []
        with self.port.exchange():
            self._check_sent(group.txPacket())
            for servo in self._names:
                data, result, error = self._sdk.readRx(self.port, servo, register[1])
                if result == COMM_RX_TIMEOUT and not values:
                    raise SilenceError(f"{self._names[servo]} does not answer")
                self._check_answer(servo, result, error, data, register)
                values.append(bytes(data))
                if error & ALERT:
                    alerts.append(servo)
        return values, alerts

    def sync_write(self, register: Register, values: Sequence[int]) -> None:
        """Write a register of all servos, unconfirmed.

        Raises:
            BusFaultError: the bytes could not be sent.
            GenpolicyError: the port is gone.
        """
        group = GroupSyncWrite(self.port, self._sdk, *register)
        for servo, value in zip(self._names, values, strict=True):
            group.addParam(servo, _bytes(register, value))
        with self.port.exchange():
            self._check_sent(group.txPacket())

    def model(self, servo: int) -> int:
        """Its model number.

        Raises:
            GenpolicyError: no sound answer, several times; so do ``get`` and ``set``.
        """

        def ask() -> int:
            with self.port.exchange():
                model, result, _ = self._sdk.ping(self.port, servo)
            self._check_answer(servo, result, 0)
            return model

        return self._insist(ask)

    def get(self, servo: int, register: Register) -> int:
        """A register's value, with sign where it has four bytes."""

        def ask() -> int:
            with self.port.exchange():
                data, result, error = self._sdk.readTxRx(self.port, servo, *register)
            self._check_answer(servo, result, error, data, register)
            return int.from_bytes(bytes(data), "little", signed=register[1] == 4)

        return self._insist(ask)

    def set(self, servo: int, register: Register, value: int) -> None:
        """Write a register, confirmed."""

        def tell() -> None:
            data = _bytes(register, value)
            with self.port.exchange():
                result, error = self._sdk.writeTxRx(self.port, servo, *register, data)
            self._check_answer(servo, result, error)

        self._insist(tell)

    def _insist(self, action: Callable[[], T]) -> T:
        self.port.reply_s = PATIENCE_S
        try:
            for _ in range(TRIES - 1):
                with contextlib.suppress(BusFaultError):
                    return action()
                time.sleep(PATIENCE_S)  # a late answer must not pass for that of the next question
            return action()
        except BusFaultError as error:
            raise GenpolicyError(
                f"{self.port.port_name}: {error}: check power, cable, ids and baud"
            ) from error
        finally:
            self.port.reply_s = self._reply_s

    def _check_sent(self, result: int) -> None:
        if result != COMM_SUCCESS:
            raise BusFaultError(self._sdk.getTxRxResult(result))

    def _check_answer(
        self,
        servo: int,
        result: int,
        error: int,
        data: Sequence[int] = (),
        register: Register = (0, 0),
    ) -> None:
        name = self._names[servo]
        if result == COMM_RX_TIMEOUT:
            raise BusFaultError(f"{name} does not answer")
        if result != COMM_SUCCESS:
            raise BusFaultError(f"the answer of {name} is damaged")
        if error & ~ALERT:
            raise BusFaultError(f"{name} refuses: {self._sdk.getRxPacketError(error & ~ALERT)}")
        if len(data) != register[1]:  # the SDK looks at the id only
            raise BusFaultError(f"{name} answers another question")


def _bytes(register: Register, value: int) -> list[int]:
    return list(value.to_bytes(register[1], "little", signed=value < 0))
