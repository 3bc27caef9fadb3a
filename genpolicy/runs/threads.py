"""The one place that decides how many threads run."""

from __future__ import annotations

import os

import torch


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def set_threads(num_threads: int | None) -> int:
    """Give torch ``num_threads``, or with None this process's share of the machine's cores.

    The simulator's pool takes the returned number too: collecting and learning alternate, so
    they never compete.
    """
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    count = num_threads or max(1, available_cores() // local_ranks)
    torch.set_num_threads(count)
    return count
