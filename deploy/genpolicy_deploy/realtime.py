"""Soft real time from Python: absolute deadlines, and what the system permits besides.

Sleeping until an absolute time keeps the rate exact; sleeping for a remainder loses 4-7 % of it,
because every wake-up is late and the lateness adds up. A missed deadline is counted and its slot
skipped: commands are never sent in a burst to catch up.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import time
from collections.abc import Callable, Iterator

from genpolicy_deploy.histogram import Histogram

FIFO_PRIORITY = 80
NICENESS = -10
_CLOCK_MONOTONIC, _TIMER_ABSTIME = 1, 1
_MCL_CURRENT, _MCL_FUTURE = 1, 2
_PR_SET_TIMERSLACK, _DEFAULT_SLACK_NS = 29, 50_000

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Ticker:
    """Calls for a tick every ``1/hz`` s of the monotonic clock.

    ``index`` is the slot in time, not a count of calls: it jumps over slots that were missed.
    """

    def __init__(self, hz: float) -> None:
        self.period_ns = round(1e9 / hz)
        self.lateness = Histogram()
        self.ticks = 0
        self.missed = 0
        self.last_lateness_us = 0.0
        self._timespec = _Timespec()
        self.start()

    def start(self) -> None:
        """Slot 0 is now. Counts go on."""
        self.index = 0
        self._origin_ns = time.monotonic_ns()

    def wait(self) -> int:
        """Sleep until the next slot; returns the time, in monotonic ns.

        A signal ends the sleep early without a tick having come: its handler runs, and the rest
        of the sleep follows.
        """
        self.index += 1
        deadline = self._origin_ns + self.index * self.period_ns
        now = time.monotonic_ns()
        if now >= deadline + self.period_ns:  # the slots in between have passed
            skipped = (now - deadline) // self.period_ns
            self.missed += skipped
            self.index += skipped
            deadline += skipped * self.period_ns
        while now < deadline:
            self._timespec.seconds, self._timespec.nanoseconds = divmod(deadline, 1_000_000_000)
            _libc.clock_nanosleep(
                _CLOCK_MONOTONIC, _TIMER_ABSTIME, ctypes.byref(self._timespec), None
            )
            now = time.monotonic_ns()
        self.last_lateness_us = (now - deadline) / 1000.0
        self.lateness.add(self.last_lateness_us)
        self.ticks += 1
        return now


@contextlib.contextmanager
def soft_realtime(priority: int = FIFO_PRIORITY) -> Iterator[dict[str, str]]:
    """Ask for everything that makes wake-ups punctual; yields what was granted and what was not.

    Applies to the calling thread (scheduling) and process (memory, garbage collection). Children
    do not inherit the priority. Everything is undone on exit.
    """
    granted: dict[str, str] = {}
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    fifo = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    gc.collect()
    gc.freeze()
    gc.disable()
    granted["gc"] = "frozen"
    _attempt(granted, "mlockall", _lock_memory)  # slow: not with priority over everybody
    _attempt(granted, "timer_slack", lambda: _set_timer_slack(1))
    _attempt(
        granted, "sched_fifo", lambda: os.sched_setscheduler(0, fifo, os.sched_param(priority))
    )
    try:
        yield granted
    finally:
        if granted["sched_fifo"] == "granted":
            os.sched_setscheduler(0, policy, parameters)
        _set_timer_slack(_DEFAULT_SLACK_NS)
        _libc.munlockall()
        gc.enable()
        gc.unfreeze()


def prefer_this_process() -> None:
    """Before ordinary programs, where permitted, but never before the loop: for inference.

    Linux shares the processor out among sessions first (autogroup), within them by niceness.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        with open("/proc/self/autogroup", "w") as group:
            group.write(str(NICENESS))


def _attempt(granted: dict[str, str], name: str, action: Callable[[], None]) -> None:
    try:
        action()
        granted[name] = "granted"
    except OSError as error:
        granted[name] = f"not permitted ({error.strerror})"


def _lock_memory() -> None:
    """No page faults. Pages to come are locked too only where no limit could make them fail."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = os.geteuid() == 0 or soft == resource.RLIM_INFINITY
    if _libc.mlockall(_MCL_CURRENT | (_MCL_FUTURE if unlimited else 0)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _set_timer_slack(nanoseconds: int) -> None:
    if _libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(nanoseconds), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
