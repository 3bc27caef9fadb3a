"""Small Gymnasium environments that worker processes can import."""

import os

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete


class Count(gymnasium.Env):
    """Observes (steps so far, where the episode started); the reward is the first action."""

    metadata = {"render_fps": 20, "render_modes": []}  # noqa: RUF012
    action_space = Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))
    observation_space = Box(-np.inf, np.inf, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.start = 0.0, self.np_random.uniform()
        return self.observe(), {}

    def observe(self):
        return np.array([self.time, self.start])

    def step(self, action):
        assert self.action_space.contains(action)  # bounds and type
        self.time += 1
        return self.observe(), float(action[0]), self.over(), False, {"is_success": self.over()}

    def over(self):
        return self.time >= 3 + round(self.start)  # after three or four steps


class Named(Count):
    observation_space = Dict({"b": Box(-1, 9, (2, 2)), "a": Box(-1, 9, ())})

    def observe(self):
        return {"a": np.float32(self.start), "b": np.full((2, 2), self.time, np.float32)}


class Endless(Count):
    def over(self):
        return False


class Raises(Count):
    def step(self, action):
        raise ValueError("the motor is\nmissing")


class Dies(Count):
    def step(self, action):
        os._exit(3)


class Nan(Count):
    def step(self, action):
        return self.observe() * np.nan, 0.0, False, False, {}


class WrongShape(Count):
    def observe(self):
        return np.zeros(3)


class Unbounded(Count):
    action_space = Box(-np.inf, np.inf, (2,))


class Words(Count):
    observation_space = Dict({"word": Discrete(3)})


gymnasium.register("Count-v0", Count, max_episode_steps=50)
