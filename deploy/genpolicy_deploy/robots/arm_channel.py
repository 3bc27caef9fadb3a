"""The arm process' end of its connection to the control loop. Nothing here waits."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from typing import Any

import numpy as np

from genpolicy_deploy.robots.arm_messages import STOPPED, goal_dtype, state_dtype, text_message

MAX_PENDING = 32  # sentences, while the loop does not listen
LAST_WORDS_S = 0.5


class Channel:
    """Orders come in, states and sentences go out.

    Stopping cannot get lost: besides the orders, which may wait in a queue, there is a pipe that
    says stop as soon as anything is written to it or its other end is closed.

    Args:
        connection: ``SOCK_SEQPACKET``.
        stop_fd: the reading end of the pipe.
    """

    def __init__(self, connection: socket.socket, stop_fd: int) -> None:
        self._connection, self._stop_fd = connection, stop_fd
        self._pending: deque[bytes] = deque(maxlen=MAX_PENDING)
        self.closed = False  # the other side has hung up
        connection.setblocking(False)
        os.set_blocking(stop_fd, False)

    def layout(self, axes: int, joints: int, effort: int) -> None:
        """Sizes of the messages, known when the arm is."""
        self._order = np.zeros(1, goal_dtype(axes))
        self._order_bytes = self._order.view(np.uint8).data
        self._state = np.zeros(1, state_dtype(axes, joints, effort))
        self._state_bytes = self._state.view(np.uint8).data
        self.state: Any = self._state[0]  # to be filled in before ``publish``

    def receive(self) -> Any | None:
        """The next order (a record of ``goal_dtype``), or None when none waits or can come."""
        if self.closed:
            return None
        try:
            size = self._connection.recv_into(self._order_bytes)
        except BlockingIOError:
            return None
        except OSError:
            size = 0
        self.closed = size != len(self._order_bytes)
        return None if self.closed else self._order[0]

    def stop_asked(self) -> bool:
        """Whether the pipe says stop."""
        try:
            os.read(self._stop_fd, 1)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def say(self, kind: bytes, sentence: str) -> None:
        """A ``fault`` or ``stopped`` message, sent when there is room for it."""
        self._pending.append(text_message(kind, sentence))

    def publish(self) -> None:
        """Send what was said and then ``state``; when nobody reads, the state is dropped."""
        with contextlib.suppress(OSError):
            while self._pending:
                self._connection.send(self._pending[0])
                self._pending.popleft()
            self._connection.send(self._state_bytes)

    def last_words(self, reason: str) -> None:
        """Say ``stopped`` and hang up."""
        self.say(STOPPED, reason)
        with contextlib.suppress(OSError):
            self._connection.settimeout(LAST_WORDS_S)
            while self._pending:
                self._connection.send(self._pending.popleft())
