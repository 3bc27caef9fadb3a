"""When did it happen? Times of another computer's clock on ours."""

from __future__ import annotations

DRIFT = 5000  # the two clocks may drift apart by one part in so many


class RemoteClock:
    """Maps a sender's time stamps to this computer's monotonic clock.

    A stamp cannot arrive before it is made, and some arrive almost at once: the smallest difference
    seen between arrival and stamp is the difference of the clocks. It gives way slowly, because two
    clocks never run at quite the same speed: a delay that grows more slowly than that is not seen.
    """

    def __init__(self) -> None:
        self._difference: int | None = None
        self._at = 0

    def local_ns(self, stamp_ns: int, now_ns: int) -> int:
        """When what is stamped ``stamp_ns`` and arrived at ``now_ns`` was made; never after now."""
        difference = now_ns - stamp_ns
        if self._difference is not None:
            difference = min(difference, self._difference + (now_ns - self._at) // DRIFT)
        self._difference, self._at = difference, now_ns
        return stamp_ns + difference
