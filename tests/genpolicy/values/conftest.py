"""A toy task: walk along a line; the policy proposes steps to the left and to the right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genpolicy.data.demonstrations import Demonstrations, Episode
from genpolicy.policies.diffusion import DiffusionConfig, DiffusionPolicy
from genpolicy.spec import ActionSpec, Feature, PolicySpec, TaskSpec


def toy_spec(obs_steps=2, chunk=4, exec_steps=3):
    task = TaskSpec(
        task="line",
        robot="cart",
        observations=(Feature("x", (1,), "m"), Feature("v", (2,), "m/s")),
        action=ActionSpec(("dx", "dy"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0)),
        control_mode="delta",
        control_hz=10.0,
        max_episode_steps=20,
    )
    return PolicySpec(task, obs_steps, chunk, exec_steps)


def toy_episode(rng, length, done):
    rewards = rng.normal(size=length).astype(np.float32)
    dones = np.zeros(length, bool)
    dones[-1] = done
    obs = {"x": rng.normal(size=(length + 1, 1)), "v": rng.normal(size=(length + 1, 2))}
    return Episode(
        obs={k: v[:-1] for k, v in obs.items()},
        next_obs={k: v[1:] for k, v in obs.items()},
        actions=rng.uniform(-1, 1, (length, 2)),
        rewards=rewards,
        dones=dones,
    )


def toy_demos(lengths, dones, seed=0):
    rng = np.random.default_rng(seed)
    episodes = [toy_episode(rng, n, d) for n, d in zip(lengths, dones, strict=True)]
    return Demonstrations.from_episodes(episodes, toy_spec().task)


@pytest.fixture
def spec():
    return toy_spec()


@pytest.fixture
def policy(spec):
    torch.manual_seed(0)
    return DiffusionPolicy(
        spec, DiffusionConfig(hidden=(16, 16, 16), time_dim=8, train_steps=8, sample_steps=4)
    )


@pytest.fixture
def obs():
    rng = np.random.default_rng(1)
    return {
        "x": torch.from_numpy(rng.normal(size=(5, 2, 1)).astype(np.float32)),
        "v": torch.from_numpy(rng.normal(size=(5, 2, 2)).astype(np.float32)),
    }


@pytest.fixture(scope="session")
def make_demos():
    return toy_demos
