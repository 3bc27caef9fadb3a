"""Environment steps per second of GoRL on finger_spin, beside plain PPO.

    python benchmarks/bench_gorl_throughput.py --json benchmarks/gorl_throughput.json

Acting goes through a decoder of ten steps, as in every stage but the first from scratch; training
makes 16 epochs over each rollout, as in the paper. Networks are those of
configs/experiment/scratch_gorl.yaml and scratch_ppo.yaml. ``shipped`` has their 64 environments
and minibatches of 512; ``wide`` has 256 and 4096, nearer to the paper's 2048 and 30720. All
variants take turns in one process; figures are medians over the rounds, ratios between these.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import genpolicy_sim
import torch
from common import save

from genpolicy.finetune.gorl import GoRL, GoRLConfig
from genpolicy.finetune.ppo import PPO, PPOConfig
from genpolicy.policies import build_policy
from genpolicy.runs.environment import describe
from genpolicy.spec import PolicySpec

TASK, EPOCHS, ROLLOUT_STEPS = "finger_spin", 16, 64
SIZES = {"shipped": (64, 512), "wide": (256, 4096)}  # environments, minibatch
SMALL = {"hidden": [64, 64, 64], "activation": "silu"}
DECODERS: dict[str, dict[str, Any]] = {
    "gorl, flow": {"name": "flow", "time_scale": 8.0, "sample_steps": 10},
    "gorl, diffusion": {"name": "diffusion", "train_steps": 20, "sample_steps": 10},
}


def build(method: str, num_envs: int, batch_size: int) -> PPO:
    """A training at work, in a stage with a decoder."""
    env = genpolicy_sim.make(TASK, num_envs)
    spec = PolicySpec(env.spec, obs_steps=1, chunk=1, exec_steps=1)
    common: dict[str, Any] = {
        "rollout_steps": ROLLOUT_STEPS, "batch_size": batch_size, "epochs": EPOCHS,
        "critic_hidden": (128, 128, 128), "critic_activation": "silu", "normalize_obs": True,
        "stagger": True, "target_kl": 1e9,
    }  # fmt: skip
    if method == "ppo":
        gaussian = {"name": "gaussian", "std": "independent", "init_std": 1.0, **SMALL}
        return PPO(build_policy(gaussian, spec), env, PPOConfig(**common), seed=0)
    decoder = build_policy(SMALL | {"hidden": [128, 128, 128]} | DECODERS[method], spec)
    config = GoRLConfig(**common, identity=True)
    algorithm = GoRL(decoder, env, config, seed=0)
    algorithm.policy.config = replace(algorithm.policy.config, identity=False)
    return algorithm


def timed(work: Any) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {"threads": args.threads, "rounds": args.rounds, "epochs": EPOCHS}
    for size, (num_envs, batch_size) in SIZES.items():
        running = {m: build(m, num_envs, batch_size) for m in (*DECODERS, "ppo")}
        seconds: dict[str, list[tuple[float, float]]] = {method: [] for method in running}
        for round_ in range(args.rounds + 1):  # the first one warms up
            for method, algorithm in running.items():
                pair = timed(algorithm.collect), timed(algorithm.update)
                if round_:
                    seconds[method].append(pair)
        result[size] = summary(seconds, num_envs * ROLLOUT_STEPS)
    save(result | {"machine": describe()}, args.json)


def summary(seconds: dict[str, list[tuple[float, float]]], steps: int) -> dict[str, Any]:
    """Steps per second of acting with simulation and of the whole, and the whole over PPO's."""
    acting = {m: statistics.median(a for a, _ in pairs) for m, pairs in seconds.items()}
    whole = {m: statistics.median(a + b for a, b in pairs) for m, pairs in seconds.items()}
    return {
        "acting_env_steps_per_s": {m: round(steps / s) for m, s in acting.items()},
        "training_env_steps_per_s": {m: round(steps / s) for m, s in whole.items()},
        "time_over_ppo": {m: round(s / whole["ppo"], 2) for m, s in whole.items()},
    }


if __name__ == "__main__":
    main()
