"""Write assets/tiny_controller.onnx: a whole controller for Lift, with untrained, tiny networks.

    python benchmarks/make_tiny_controller.py assets/tiny_controller.onnx

Tests of packaging and deployment load it; it obeys the contract and moves a robot senselessly.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import genpolicy_sim
import torch

from genpolicy.export.onnx import export
from genpolicy.policies.diffusion import DiffusionConfig, DiffusionPolicy
from genpolicy.spec import PolicySpec
from genpolicy.values.critic import ValueConfig, ValueFunction


def main() -> None:
    """Build and export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    spec = PolicySpec(genpolicy_sim.make("lift").spec, obs_steps=1, chunk=4, exec_steps=4)
    config = DiffusionConfig(hidden=(8, 8, 8), time_dim=8, train_steps=4, sample_steps=2)
    policy = DiffusionPolicy(spec, config)
    value = ValueFunction(ValueConfig(hidden=(8,), members=2), spec)
    export(policy, value, arguments.out, num_samples=4, checkpoint_hash="untrained")
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
