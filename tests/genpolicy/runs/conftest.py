"""A real policy under the smallest algorithm that has everything a checkpoint must hold."""

import numpy as np
import pytest
import torch
from toy_env import SPEC

from genpolicy.policies import build_policy

POLICY = {"name": "diffusion", "hidden": [16, 16, 16], "train_steps": 4, "sample_steps": 2}


class RandomWalk:
    """Weights take noisy steps, so one lost draw or one wrong moment shows in every later one."""

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        self.policy = build_policy(POLICY, SPEC)
        self.rng = np.random.default_rng(seed)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=1e-2)
        self.env_steps = 0
        self.draw = np.zeros(3)

    def collect(self):
        self.env_steps += 10
        self.draw = self.rng.standard_normal(3)

    def update(self):
        self.optimizer.zero_grad()
        scale = float(self.draw.sum())
        sum((scale * p).sum() for p in self.policy.parameters()).backward()
        self.optimizer.step()

    def metrics(self):
        return {"train/loss": float(self.draw.sum())}

    def state_dict(self):
        return {
            "model": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "env": {"draw": self.draw, "flags": np.array([True, False])},
            "env_steps": self.env_steps,
        }

    def load_state_dict(self, state):
        self.policy.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        self.draw = np.asarray(state["env"]["draw"])
        self.env_steps = state["env_steps"]


@pytest.fixture
def make_algorithm():
    return RandomWalk
