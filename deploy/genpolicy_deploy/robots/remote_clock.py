"""When did it happen? Times of another computer's clock on ours."""

from __future__ import annotations

_WINDOW_NS = 10_000_000_000


class RemoteClock:
    """Maps a sender's time stamps to this computer's monotonic clock.

    A stamp cannot arrive before it is made, and some arrive almost at once: the smallest difference
    seen between arrival and stamp is the difference of the clocks. It is looked for in the last 10
    to 20 s only, because clocks drift (50 ppm are 0.2 s in an hour).
    """

    def __init__(self) -> None:
        self._since_ns: int | None = None
        self._current = self._previous = 0

    def local_ns(self, stamp_s: float, now_ns: int) -> int:
        """When the newest stamp was made, ns on our clock, if it arrived at ``now_ns``."""
        stamp_ns = round(stamp_s * 1e9)
        difference = now_ns - stamp_ns
        if self._since_ns is None:
            self._since_ns, self._current, self._previous = now_ns, difference, difference
        elif now_ns - self._since_ns > _WINDOW_NS:
            self._since_ns, self._previous, self._current = now_ns, self._current, difference
        self._current = min(self._current, difference)
        return stamp_ns + min(self._current, self._previous)
