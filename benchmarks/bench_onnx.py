"""Inference of the exported controller on one thread, against eager torch with diffusers.

    python benchmarks/bench_onnx.py --json benchmarks/onnx.json

One chunk of the network that trains on Lift ([512]³, 10 DDIM steps), four ways, interleaved call by
call so that whatever else the machine does hits all of them alike. Weights are random: they do not
change the time. Observations and noise change at every call.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from common import save
from diffusers import DDIMScheduler
from genpolicy_deploy.graph import Graph

from genpolicy.export.onnx import export, random_inputs
from genpolicy.policies.diffusion import DiffusionConfig, DiffusionPolicy
from genpolicy.runs.environment import describe
from genpolicy.spec import ActionSpec, Feature, PolicySpec, TaskSpec
from genpolicy.values.critic import ValueConfig, ValueFunction

SAMPLES = 10
INPUTS = 64  # different observations and noises, taken in turn


def lift_spec() -> PolicySpec:
    """The shapes of Panda Lift with chunks of four actions."""
    task = TaskSpec(
        task="lift",
        robot="Panda",
        observations=(
            Feature("robot0_eef_pos", (3,)),
            Feature("robot0_eef_quat", (4,)),
            Feature("robot0_gripper_qpos", (2,)),
            Feature("object", (10,)),
        ),
        action=ActionSpec(tuple("xyzabcg"), ("",) * 7, (-1.0,) * 7, (1.0,) * 7),
        control_mode="osc_pose_delta",
        control_hz=20.0,
        max_episode_steps=100,
    )
    return PolicySpec(task, obs_steps=1, chunk=4, exec_steps=4)


def eager_diffusers(policy: DiffusionPolicy) -> Callable[[dict[str, np.ndarray]], object]:
    """How a diffusion policy is usually run: the scheduler's loop around the network."""
    config = policy.config
    scheduler = DDIMScheduler(
        num_train_timesteps=config.train_steps,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=True,
        prediction_type="epsilon",
    )
    scheduler.set_timesteps(config.sample_steps)

    @torch.inference_mode()
    def run(inputs: dict[str, np.ndarray]) -> object:
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        obs = policy.normalizer.obs({k: tensors[f"obs.{k}"] for k in policy.normalizer.keys})
        x = tensors["noise"].flatten(2)[0]
        for t in scheduler.timesteps:
            eps = policy.net(x, policy.net.time_features(t), policy.net.obs_features(obs))
            step = scheduler.step(eps, t, x, eta=0.0, use_clipped_model_output=True)
            x = step.prev_sample
        return policy.to_actions(x).numpy()

    return run


def onnx_controller(path: Path) -> Callable[[dict[str, np.ndarray]], object]:
    """The exported graph as the robot runs it."""
    graph = Graph(path)

    def run(inputs: dict[str, np.ndarray]) -> object:
        obs = {k: inputs[f"obs.{k}"] for k in graph.obs_names}
        return graph.predict(obs, inputs)

    return run


def measure(
    contestants: dict[str, tuple[Callable, list]], calls: int, warm_up: int = 50
) -> dict[str, np.ndarray]:
    """Seconds of every call, ``[calls]`` per contestant, one call of each in turn."""
    times = {name: np.empty(calls) for name in contestants}
    for i in range(-warm_up, calls):
        for name, (run, inputs) in contestants.items():
            start = time.perf_counter()
            run(inputs[i % INPUTS])
            elapsed = time.perf_counter() - start
            if i >= 0:
                times[name][i] = elapsed
    return times


def summary(times: dict[str, np.ndarray]) -> dict[str, object]:
    """Quantiles in milliseconds and the two ratios of medians."""
    table = {
        name: {f"p{q}": round(float(np.percentile(t, q) * 1e3), 4) for q in (10, 50, 99)}
        for name, t in times.items()
    }
    p50 = {name: row["p50"] for name, row in table.items()}
    return {
        "milliseconds": table,
        "onnx_speedup_over_eager": round(p50["eager_diffusers"] / p50["onnx"], 3),
        "k10_reranked_over_k1": round(p50["onnx_reranked_k10"] / p50["onnx_reranked_k1"], 3),
    }


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--calls", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    spec = lift_spec()
    policy = DiffusionPolicy(spec, DiffusionConfig()).eval()
    value = ValueFunction(ValueConfig(), spec).eval()
    rng = np.random.default_rng(0)
    one = [random_inputs(policy, 1, rng) for _ in range(INPUTS)]
    many = [random_inputs(policy, SAMPLES, rng) for _ in range(INPUTS)]
    with tempfile.TemporaryDirectory() as folder:
        bare, reranked = Path(folder, "bare.onnx"), Path(folder, "reranked.onnx")
        parity = [
            export(policy, None, bare).parity_max_abs_err,
            export(policy, value, reranked, num_samples=SAMPLES).parity_max_abs_err,
        ]
        scored = onnx_controller(reranked)
        # The same actions, or the comparison means nothing.
        for inputs in one:
            np.testing.assert_allclose(
                eager_diffusers(policy)(inputs), scored(inputs)[0], atol=1e-4
            )
        times = measure(
            {
                "eager_diffusers": (eager_diffusers(policy), one),
                "onnx": (onnx_controller(bare), one),
                "onnx_reranked_k1": (scored, one),
                "onnx_reranked_k10": (scored, many),
            },
            arguments.calls,
        )
    result = {
        "threads": 1,
        "calls": arguments.calls,
        "parity_max_abs_err": max(parity),
        **summary(times),
        "machine": describe(),
    }
    save(result, arguments.json)


if __name__ == "__main__":
    main()
