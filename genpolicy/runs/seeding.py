"""From one ``seed`` to independent random streams, and to initial states that never collide.

Environment ``i`` of ``env.reset(s)`` starts where ``s + i`` alone decides, so ranges of ``s`` are
handed out here: evaluation uses the same few for every policy, and no training or demonstration
episode ever starts from one of them.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch

EVAL_SEED0 = 1000
_BLOCK = 1_000_000  # initial states of one seed and purpose
_PURPOSES = {"collect": 1, "train": 2}


def generator(seed: int, purpose: str, rank: int = 0) -> np.random.Generator:
    """A stream that depends on all three arguments and on nothing else."""
    return np.random.default_rng([seed, rank, zlib.crc32(purpose.encode())])


def env_seed(seed: int, purpose: str, rank: int = 0, num_envs: int = 0) -> int:
    """First initial state for ``purpose`` (``collect`` or ``train``), above all evaluation's."""
    return (2 * seed + _PURPOSES[purpose]) * _BLOCK + rank * num_envs


def seed_torch(seed: int) -> None:
    """Fix parameter initialisation; everything else draws from a ``generator``."""
    torch.manual_seed(seed)
