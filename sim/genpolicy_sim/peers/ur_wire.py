"""The network between a UR controller and its clients, with the faults that are ordered."""

from __future__ import annotations

import os
from collections import Counter, deque
from typing import Any

from genpolicy_sim.peers.ur_rtde import Session

PARTIAL_S = 0.02  # between the two halves of a package
NOISE_BYTES = 32


class Wire:
    """Sends packages of outputs, unless ordered otherwise.

    Attributes:
        shown: the outputs that clients see; the controller's own unless they are altered.
        next: how many of the next packages are lost (``drop``), sent twice (``duplicate``), in two
            parts (``partial``), with positions that are not finite (``nan``) or after bytes that
            mean nothing (``noise``).
        until: by fault, the second when it ends: nothing passes either way (``silent``), outputs
            stand still (``freeze``), packages come late (``delay``), positions are off (``jump``),
            currents are high (``current``).
        size: by fault: s of ``delay``, rad of ``jump``, A of ``current``.
    """

    def __init__(self) -> None:
        self.shown: dict[str, Any] = {}
        self.next: Counter[str] = Counter()
        self.until: dict[str, float] = {}
        self.size: dict[str, float] = {}
        self._queue: deque[tuple[float, Session, bytes]] = deque()

    def on(self, fault: str, now: float) -> bool:
        """Whether ``fault`` lasts."""
        return now < self.until.get(fault, 0.0)

    def show(self, values: dict[str, Any], now: float) -> None:
        """Take over the controller's outputs, altered as ordered."""
        if self.on("freeze", now):
            return
        self.shown |= values
        if self.on("jump", now):
            self.shown["actual_q"] = [q + self.size["jump"] for q in values["actual_q"]]
        if self.on("current", now):
            self.shown["actual_current"] = [self.size["current"]] * 6

    def publish(self, sessions: list[Session], now: float) -> None:
        """Send every session what is due."""
        for session in sessions:
            if session.started and now >= session.due:
                session.due = max(session.due + session.period, now - session.period)
                pieces = self._pieces(session, now)
                self._queue.extend((due, session, piece) for due, piece in pieces)
        while self._queue and self._queue[0][0] <= now and not self.on("silent", now):
            _, session, piece = self._queue.popleft()
            session.send(piece)

    def _pieces(self, session: Session, now: float) -> list[tuple[float, bytes]]:
        """What the session is sent of this package, and when."""
        if self.on("silent", now) or self._take("drop"):
            return []
        if self._take("nan"):
            self.shown["actual_q"] = [float("nan")] * 6
        package = session.package()
        due = now + (self.size["delay"] if self.on("delay", now) else 0.0)
        pieces = [(due, package)]
        if self._take("noise"):
            pieces.insert(0, (due, os.urandom(NOISE_BYTES)))
        if self._take("duplicate"):
            pieces.append((due, package))
        if self._take("partial"):
            half = len(package) // 2
            pieces = [(due, package[:half]), (due + PARTIAL_S, package[half:])]
        return pieces

    def _take(self, fault: str) -> bool:
        pending = self.next[fault] > 0
        self.next[fault] -= pending
        return pending
