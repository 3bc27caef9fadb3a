"""Small untrained policies of every kind for Lift, exported as a user would."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_controller import lift_task

from genpolicy.export.onnx import export
from genpolicy.policies import build_policy
from genpolicy.spec import PolicySpec
from genpolicy.values.critic import ValueConfig, ValueFunction

SMALL = {"hidden": [8, 8, 8]}
KINDS = {
    "diffusion": {"name": "diffusion", "time_dim": 8, "train_steps": 4, "sample_steps": 2},
    "flow": {"name": "flow", "time_dim": 8, "sample_steps": 2},
    "gaussian": {"name": "gaussian", "execute_std": 1.0},
}
KINDS["on_the_fly"] = {
    "name": "on_the_fly", "base": SMALL | KINDS["flow"], "samples": 3, "edit_hidden": [8, 8, 8],
    "critics": 3, "critic_hidden": [8],
}  # fmt: skip
KINDS["latent"] = {"name": "latent", "execute_std": 1.0, "decoder": SMALL | KINDS["flow"]}


def build_exported(path: Path, kind: str) -> Path:
    """Write the controller of one kind, with a value function that chooses among 3 samples."""
    torch.manual_seed(0)
    chunk = 4 if kind == "on_the_fly" else 8  # which executes all that it scores
    spec = PolicySpec(lift_task(), obs_steps=1, chunk=chunk, exec_steps=4)
    value = ValueFunction(ValueConfig(hidden=(8,), members=2), spec)
    config = KINDS[kind] if kind == "on_the_fly" else SMALL | KINDS[kind]
    export(build_policy(config, spec), value, path, num_samples=3)
    return path
