"""Threads that share the simulations of one compiled call.

The calling thread is one of them, so nothing waits for a thread to wake up. It publishes how many
simulations there are; whoever is free takes the next ticket; the caller returns when all are
finished. Helpers sleep on a semaphore in between. A helper that wakes too late finds no ticket and
touches nothing.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types  # pyright: ignore[reportPrivateImportUsage]

from genpolicy_sim.jit import njit
from genpolicy_sim.native import atomic_add, atomic_set

# Where things are from the address of a gate, in bytes. The semaphore is the last of them.
TICKETS, FINISHED, CLOSED, SEMAPHORE, SIZE = 0, 64, 128, 192, 256

_sem_wait = types.ExternalFunction("sem_wait", types.int32(types.intp))
_sem_post = types.ExternalFunction("sem_post", types.int32(types.intp))
_sched_yield = types.ExternalFunction("sched_yield", types.int32())


@njit(nogil=True, cache=True)
def publish(gate: int, count: int, helpers: int) -> None:
    """Offer ``count`` tickets and wake up to ``helpers`` helpers."""
    atomic_set(gate + FINISHED, 0)
    atomic_set(gate + TICKETS, count)
    for _ in range(min(helpers, count - 1)):
        _sem_post(gate + SEMAPHORE)


@njit(nogil=True, cache=True)
def take_ticket(gate: int) -> int:
    """The next ticket, or a negative number: there are no more."""
    return atomic_add(gate + TICKETS, -1) - 1


@njit(nogil=True, cache=True)
def finish(gate: int) -> None:
    """What a ticket stood for is done."""
    atomic_add(gate + FINISHED, 1)


@njit(nogil=True, cache=True)
def join(gate: int, count: int) -> None:
    """Return when ``count`` tickets are finished: soon, since each is in work."""
    while atomic_add(gate + FINISHED, 0) < count:
        _sched_yield()


@njit(nogil=True, cache=True)
def wait_for_work(gate: int) -> bool:
    """Sleep until there may be tickets; false: the gate is closed, go home."""
    while _sem_wait(gate + SEMAPHORE) != 0:  # interrupted by a signal
        pass
    return atomic_add(gate + CLOSED, 0) == 0


class Crew:
    """Helper threads that run ``work(thread)``, compiled, for thread = 1, 2, ... until closed.

    Args:
        helpers: how many, besides the calling thread.
    """

    def __init__(self, helpers: int) -> None:
        self.helpers = helpers
        self._gate = np.zeros(SIZE // 8, np.intp)
        self.address = self._gate.ctypes.data
        ctypes.CDLL(None).sem_init(ctypes.c_void_p(self.address + SEMAPHORE), 0, 0)
        self.close = lambda: None

    def start(self, work: Callable[..., Any], *args: Any) -> None:
        """Let every helper run ``work(*args, thread)``; ``args`` live as long as the threads."""
        threads = [
            threading.Thread(target=work, args=(*args, k + 1), daemon=True)
            for k in range(self.helpers)
        ]
        for thread in threads:
            thread.start()
        self.close = weakref.finalize(self, _send_home, self._gate, threads)


def _send_home(gate: Any, threads: list[threading.Thread]) -> None:
    gate[CLOSED // 8] = 1
    post = ctypes.CDLL(None).sem_post
    for _ in threads:
        post(ctypes.c_void_p(gate.ctypes.data + SEMAPHORE))
    for thread in threads:
        thread.join()
