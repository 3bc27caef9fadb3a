"""Punctuality of the control loop at 500 Hz, bare and beside running inference.

    python benchmarks/bench_control_loop.py --json benchmarks/control_loop.json [CONTROLLER.onnx]

Without a controller, one is exported with random weights and the sizes that train on Lift ([512]³,
10 DDIM steps, ten samples re-ranked): weights do not change the time. What is measured and how is
in ``genpolicy_deploy.bench``: inference is never idle, so this is more load than a run has.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from genpolicy_deploy.bench import bench
from genpolicy_deploy.tables import bench_table

SAMPLES = 10


def export_random(path: Path) -> Path:
    """A re-ranking controller of the usual size with random weights."""
    import genpolicy_sim
    import torch

    from genpolicy.export.onnx import export
    from genpolicy.policies.diffusion import DiffusionConfig, DiffusionPolicy
    from genpolicy.spec import PolicySpec
    from genpolicy.values.critic import ValueConfig, ValueFunction

    torch.set_num_threads(1)
    torch.manual_seed(0)
    spec = PolicySpec(genpolicy_sim.make("lift").spec, obs_steps=1, chunk=4, exec_steps=4)
    policy = DiffusionPolicy(spec, DiffusionConfig()).eval()
    value = ValueFunction(ValueConfig(), spec).eval()
    export(policy, value, path, num_samples=SAMPLES)
    return path


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("controller", type=Path, nargs="?")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        controller = arguments.controller or export_random(Path(folder) / "random.onnx")
        load = os.getloadavg()[0]  # of others: a busy machine shows in every phase
        result: dict[str, Any] = bench(controller, arguments.seconds, on_progress=print)
    result |= {"controller": controller.name, "load_before": round(load, 2), "cpus": os.cpu_count()}
    print(bench_table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
