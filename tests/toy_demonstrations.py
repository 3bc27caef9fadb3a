"""A toy task and random episodes of it, for tests that need data."""

import numpy as np

from genpolicy.data.demonstrations import Episode
from genpolicy.spec import ActionSpec, Feature, TaskSpec


def make_task(dims: dict[str, int], action_dim: int = 2) -> TaskSpec:
    return TaskSpec(
        task="toy",
        robot="none",
        observations=tuple(Feature(key, (dim,), "m") for key, dim in dims.items()),
        action=ActionSpec(
            names=tuple(f"a{i}" for i in range(action_dim)),
            units=("m",) * action_dim,
            low=(-1.0,) * action_dim,
            high=(1.0,) * action_dim,
        ),
        control_mode="toy",
        control_hz=10.0,
        max_episode_steps=50,
        control={"scale": 0.5},
        versions={"toy": "1"},
    )


def make_episode(task: TaskSpec, length: int, rng: np.random.Generator) -> Episode:
    def observations() -> dict[str, np.ndarray]:
        return {
            f.name: rng.normal(size=(length, *f.shape)).astype(np.float32)
            for f in task.observations
        }

    return Episode(
        obs=observations(),
        next_obs=observations(),
        actions=rng.uniform(-1, 1, (length, task.action.dim)),
        rewards=rng.normal(size=length),
        dones=np.arange(length) == length - 1,
        states=rng.normal(size=(length, 5)),
    )
