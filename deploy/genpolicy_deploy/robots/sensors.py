"""Numbers that another program measures (a camera's, an object's pose), taken from UDP packets.

A packet is ``SIZE`` little-endian float64 numbers and comes from this computer: what steers an arm
is not taken from a network, where anybody may send. Nothing here waits.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError

HOST = "127.0.0.1"
_TIMESPEC = 16  # bytes: seconds and nanoseconds
_SO_TIMESTAMPNS = getattr(socket, "SO_TIMESTAMPNS", 35)  # not in Python 3.11's socket on Linux
_ANCILLARY = socket.CMSG_SPACE(_TIMESPEC)
_MAX_PACKETS = 512  # per poll: a flood may not hold up the loop


class UdpSensor:
    """The newest packet of one port.

    ``t_ns`` is when the kernel received it, on the monotonic clock, so that a packet which waited
    in the queue is known to be old. A packet of another size, or one with a number that is not
    finite, is a fault and changes nothing: the age of the last good one tells.

    Args:
        name: of the observation, for messages.
        port: on this computer.
        size: numbers per packet.
    """

    def __init__(self, name: str, port: int, size: int) -> None:
        self.name, self.port = name, port
        self.value: NDArray[np.float64] = np.zeros(size)  # written in place
        self.seq = 0  # good packets so far
        self.t_ns = 0
        self._buffer = bytearray(8 * size + 1)  # one more shows packets that are too long
        self._packet = np.frombuffer(self._buffer, "<f8", size)
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Begin to listen.

        Raises:
            GenpolicyError: the port is taken.
        """
        self.close()
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            listener.bind((HOST, self.port))
        except OSError as error:
            listener.close()
            raise GenpolicyError(
                f"observation '{self.name}': UDP port {self.port} cannot be opened "
                f"({error.strerror}); does another run use it?"
            ) from error
        self._socket = listener

    def poll(self, faults: list[str]) -> None:
        """Take all packets that wait; what is wrong with them is added to ``faults``."""
        if self._socket is None:
            return
        wrong = ""
        for _ in range(_MAX_PACKETS):
            try:
                size, ancillary, _, _ = self._socket.recvmsg_into([self._buffer], _ANCILLARY)
            except BlockingIOError:
                break
            except OSError as error:
                wrong = error.strerror or "socket error"
                break
            wrong = self._take(size, ancillary) or wrong
        if wrong:
            faults.append(f"observation '{self.name}': {wrong} on UDP port {self.port}")

    def _take(self, size: int, ancillary: Sequence[tuple[int, int, bytes]]) -> str:
        """Accept a packet, or say why not."""
        if size != 8 * len(self.value):
            return f"a packet of {size} bytes instead of {8 * len(self.value)}"
        if not np.isfinite(self._packet).all():
            return "a packet with a number that is not finite"
        self.value[:] = self._packet
        self.t_ns = _received_ns(ancillary)
        self.seq += 1
        return ""

    def drain(self) -> None:
        """Forget every packet so far: ``seq`` starts again."""
        self.poll([])
        self.seq = 0

    def close(self) -> None:
        """Let go of the port. May be called twice."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


def _received_ns(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """Time of reception on the monotonic clock; never in the future."""
    now, wall = time.monotonic_ns(), time.time_ns()
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC:
            seconds, nanoseconds = np.frombuffer(data[:_TIMESPEC], np.int64).tolist()
            return now - max(wall - seconds * 1_000_000_000 - nanoseconds, 0)
    return now
