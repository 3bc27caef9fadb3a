"""A task small enough to fine-tune in a test: move a point to a goal."""

import numpy as np
import pytest

from genpolicy.spec import ActionSpec, Feature, StepResult, TaskSpec

TASK = TaskSpec(
    task="reach",
    robot="point",
    observations=(Feature("position", (2,)), Feature("goal", (2,))),
    action=ActionSpec(("x", "y"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0)),
    control_mode="delta",
    control_hz=10.0,
    max_episode_steps=8,
)


class ReachEnv:
    """Each action moves the point by a quarter of itself; within 0.3 of the goal is success."""

    spec = TASK

    def __init__(self, num_envs=16):
        self.num_envs = num_envs

    def reset(self, seed=None):
        self.rng = np.random.default_rng(seed)
        self.position, self.goal = np.zeros((2, self.num_envs, 2))
        self.elapsed = np.zeros(self.num_envs, dtype=np.int64)
        self._restart(np.ones(self.num_envs, dtype=bool))
        return self._observe()

    def _restart(self, mask):
        draws = self.rng.uniform(-1, 1, (2, self.num_envs, 2))
        self.position[mask], self.goal[mask] = draws[:, mask]
        self.elapsed[mask] = 0

    def _observe(self):
        arrays = {"position": self.position, "goal": self.goal}
        return {k: v.astype(np.float32)[:, None] for k, v in arrays.items()}

    def step(self, actions):
        rewards = np.zeros(actions.shape[:2])
        alive, success = np.ones((2, self.num_envs), dtype=bool) & [[True], [False]]
        steps = np.zeros(self.num_envs, dtype=np.int64)
        for k in range(actions.shape[1]):
            self.position[alive] += 0.25 * np.clip(actions[alive, k], -1, 1)
            self.elapsed[alive] += 1
            steps += alive
            reached = alive & (np.linalg.norm(self.position - self.goal, axis=1) < 0.3)
            rewards[reached, k] = 1.0
            success |= reached
            alive = alive & ~reached & (self.elapsed < TASK.max_episode_steps)
        truncated = ~success & ~alive
        final_obs = self._observe()
        self._restart(success | truncated)
        return StepResult(
            self._observe(), rewards.sum(1), rewards, success, truncated, final_obs, success,
            steps, {},
        )  # fmt: skip

    def get_state(self):
        state = self.rng.bit_generator.state["state"]
        words = [state[k] >> s & 0xFFFFFFFFFFFFFFFF for k in ("state", "inc") for s in (0, 64)]
        return {
            "position": self.position.copy(),
            "goal": self.goal.copy(),
            "elapsed": self.elapsed.copy(),
            "rng": np.array(words, dtype=np.uint64).view(np.int64),
        }

    def set_state(self, state):
        for name in ("position", "goal", "elapsed"):
            setattr(self, name, np.array(state[name]))
        words = [int(w) for w in np.asarray(state["rng"]).view(np.uint64)]
        self.rng = np.random.default_rng()
        generator = self.rng.bit_generator.state
        generator["state"] = {
            "state": words[0] | words[1] << 64,
            "inc": words[2] | words[3] << 64,
        }
        self.rng.bit_generator.state = generator
        return self._observe()

    def close(self):
        pass


@pytest.fixture
def reach_env():
    return ReachEnv()
