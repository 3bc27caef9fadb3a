"""A child process and a socket of whole messages to it, which the control loop never waits on.

``SOCK_SEQPACKET`` keeps message boundaries, and its end-of-file says that the child is gone,
however it went. The child inherits one end of the pair as a file descriptor.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from genpolicy.spec import GenpolicyError

# A child that has real-time priority would spin on helper threads of BLAS that have none.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def outlive_signals() -> None:
    """In a child: it ends when its socket does, not by signals that are meant for a whole group.

    The parent has to stop a robot first, and needs its children for that: Ctrl-C, a closed
    terminal and systemd tell all of them at once.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


class LinkClosedError(GenpolicyError):
    """The process at the other end has ended."""


class Link:
    """The parent's end. ``start`` launches ``python -m module --fd N args``.

    Args:
        name: of the other process, for messages.
        module: what it runs.
        args: its further arguments.
        buffer: bytes of the longest message it sends.
    """

    def __init__(
        self, name: str, module: str, args: Sequence[str] = (), buffer: int = 1 << 16
    ) -> None:
        self.name = name
        self._command = [sys.executable, "-m", module]
        self._args = list(args)
        self._buffer = bytearray(buffer)
        self._spare = bytearray(buffer)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, args: Sequence[str] = (), pass_fds: Sequence[int] = ()) -> None:
        """Launch the child. It gets its own session: Ctrl-C is for us to handle.

        Args:
            args: further arguments of this time.
            pass_fds: further descriptors that it inherits.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [*self._command, "--fd", str(theirs.fileno()), *self._args, *args],
                pass_fds=[theirs.fileno(), *pass_fds],
                stdin=subprocess.DEVNULL,
                env=os.environ | dict.fromkeys(_THREADS, "1"),
                start_new_session=True,
            )
        ours.setblocking(False)
        self._socket = ours

    def send(self, message: bytes | bytearray | memoryview) -> bool:
        """Send if there is room; False when the other side does not keep up.

        Raises:
            LinkClosedError: there is no other side any more.
        """
        try:
            self._socket.send(message)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._closed() from error
        return True

    def receive(self) -> memoryview | None:
        """The next message, valid until the call after the next; None when none is waiting.

        Raises:
            LinkClosedError: the other process ended and everything it sent has been received.
        """
        try:
            try:
                size = self._socket.recv_into(self._spare)
            except ConnectionResetError:  # it left without reading all; what it said comes now
                size = self._socket.recv_into(self._spare)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._closed() from error
        if size == 0:
            raise self._closed()
        self._buffer, self._spare = self._spare, self._buffer
        return memoryview(self._buffer)[:size]

    def receive_newest(self) -> memoryview | None:
        """The newest message, older ones dropped."""
        newest = message = self.receive()
        while message is not None:
            newest, message = message, self.receive()
        return newest

    def wait(self, timeout_s: float, what: str) -> memoryview:
        """The next message, waited for: only outside the control loop.

        Raises:
            LinkClosedError: as ``receive``.
            GenpolicyError: nothing came in time.
        """
        deadline = time.monotonic() + timeout_s
        while (message := self.receive()) is None:
            left = deadline - time.monotonic()
            if left <= 0.0:
                raise GenpolicyError(f"{self.name}: no {what} within {timeout_s:g} s")
            select.select([self._socket], [], [], left)
        return message

    def close(self, timeout_s: float = 1.0) -> None:
        """Hang up, which tells the child to end; one that does not is killed."""
        if self.process is None:
            return
        self._socket.close()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _closed(self) -> LinkClosedError:
        code = self.process.poll() if self.process else None
        status = "" if code is None else f" (exit code {code})"
        return LinkClosedError(f"{self.name}: the process has ended{status}")
