"""When late becomes too late: ages in seconds, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Verdict(IntEnum):
    """What the loop must do, mildest first."""

    GO = 0
    HOLD = 1
    STOP = 2


@dataclass(frozen=True)
class Watchdog:
    """Thresholds, s.

    A measurement also counts as old while the robot sends only ones that cannot be used (not
    finite, wrong shape), and so does a robot that has fallen silent.
    """

    measurement_warn: float = 0.02
    measurement_hold: float = 0.1
    measurement_stop: float = 1.0
    chunk_hold: float = 0.1  # waiting for the next chunk
    chunk_stop: float = 2.0
    chunk_age: float = 0.5  # of the observation behind a chunk: older ones are not begun
    overrun: float = 0.05  # a tick later than this is an event of its own

    def judge(self, measurement_age: float, waiting: float) -> tuple[Verdict, str]:
        """The verdict and its reason.

        Args:
            measurement_age: s since the newest usable measurement was taken.
            waiting: s since the next chunk was needed, 0 when none is.
        """
        if measurement_age > self.measurement_stop:
            return Verdict.STOP, f"no usable measurement for {measurement_age:.2f} s"
        if waiting > self.chunk_stop:
            return Verdict.STOP, f"no chunk for {waiting:.2f} s"
        if measurement_age > self.measurement_hold:
            return Verdict.HOLD, "measurement is stale"
        if waiting > self.chunk_hold:
            return Verdict.HOLD, "chunk is late"
        return Verdict.GO, ""
