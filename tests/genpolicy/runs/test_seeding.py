"""Seeds: streams are independent, initial states never collide with evaluation's."""

import itertools

import numpy as np

from genpolicy.runs.seeding import EVAL_SEED0, env_seed, generator


def test_streams_depend_on_seed_purpose_and_rank():
    keys = list(itertools.product((0, 1), ("train", "collect"), (0, 1)))
    draws = {key: tuple(generator(*key).standard_normal(4)) for key in keys}
    assert len(set(draws.values())) == len(keys)
    assert draws[keys[0]] == tuple(generator(*keys[0]).standard_normal(4))


def test_initial_states_are_disjoint():
    """4096 environments on each of 4 ranks, three seeds, and 10000 evaluation episodes."""
    used = [range(EVAL_SEED0, EVAL_SEED0 + 10_000)]
    for seed, purpose, rank in itertools.product(range(3), ("collect", "train"), range(4)):
        first = env_seed(seed, purpose, rank, num_envs=4096)
        used.append(range(first, first + 4096))
    numbers = np.concatenate([np.asarray(r) for r in used])
    assert len(np.unique(numbers)) == len(numbers)
