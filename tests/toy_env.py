"""A one-dimensional task whose every initial state depends on its seed alone."""

import numpy as np
import torch

from genpolicy.spec import ActionSpec, Feature, PolicySpec, StepResult, TaskSpec

TASK = TaskSpec(
    task="slide",
    robot="point",
    observations=(Feature("place", (1,), "m"), Feature("start", (1,), "m")),
    action=ActionSpec(("dx",), ("m",), (-1.0,), (1.0,)),
    control_mode="delta",
    control_hz=10.0,
    max_episode_steps=12,
)
SPEC = PolicySpec(TASK, obs_steps=1, chunk=3, exec_steps=2)


class SlideEnv:
    """Reach place < 0 from a start in [0, 1]; with ``skips`` it can leave environments out."""

    spec = TASK

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.executed = 0  # control steps, over all environments

    def reset(self, seed=None):
        self.rngs = [np.random.default_rng(seed + i) for i in range(self.num_envs)]
        self.place = np.zeros(self.num_envs)
        self.start = np.zeros(self.num_envs)
        self.time = np.zeros(self.num_envs, dtype=np.int64)
        self._restart(range(self.num_envs))
        return self._observe()

    def _restart(self, ids):
        for i in ids:
            self.start[i] = self.place[i] = self.rngs[i].uniform()
            self.time[i] = 0

    def _observe(self):
        pairs = {"place": self.place, "start": self.start}
        return {name: value.astype(np.float32)[:, None, None] for name, value in pairs.items()}

    def step(self, actions, active=None):
        running = np.ones(self.num_envs, dtype=bool) if active is None else active.copy()
        rewards = np.zeros(actions.shape[:2])
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        steps = np.zeros(self.num_envs, dtype=np.int64)
        for t in range(actions.shape[1]):
            self.place[running] += 0.2 * actions[running, t, 0]
            self.time += running
            steps += running
            reached = running & (self.place < 0)
            rewards[reached, t] = 1.0
            terminated |= reached
            truncated |= running & ~reached & (self.time >= TASK.max_episode_steps)
            running &= ~(terminated | truncated)
        self.executed += int(steps.sum())
        final_obs = self._observe()
        self._restart(np.flatnonzero(terminated | truncated))
        return StepResult(
            self._observe(), rewards.sum(1), rewards, terminated, truncated, final_obs,
            terminated.copy(), steps, {},
        )  # fmt: skip

    def get_state(self):
        return {"qpos": self.place[:, None].copy()}

    def close(self):
        pass


class SlidePolicy:
    """Moves left with a noisy stride: whether it arrives in time depends on start and noise."""

    spec = SPEC

    def noise_spec(self, batch, num_samples=1):
        shape = (batch, num_samples, 3, 1)
        return {"noise": shape, "step_noise": (2, *shape)}

    def sample(self, obs, *, noise=None, num_samples=1, deterministic=True):
        drawn = noise["noise"] + noise["step_noise"].sum(0)
        return (0.6 * drawn - 0.25 - 0.0 * obs["place"][:, :, None, None].mean()).clamp(-1, 1)


class BigStride(torch.nn.Module):
    """A module that always arrives, and counts its calls by training mode."""

    spec = SPEC

    def __init__(self):
        super().__init__()
        self.modes = []

    def noise_spec(self, batch, num_samples=1):
        return {"noise": (batch, num_samples, 3, 1)}

    def sample(self, obs, *, noise=None, num_samples=1, deterministic=True):
        self.modes.append(self.training)
        return torch.full_like(noise["noise"], -1.0)
