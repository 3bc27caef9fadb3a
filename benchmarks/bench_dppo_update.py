"""Chain samples per second of DPPO's update, beside the limit that its matrix products set.

    python benchmarks/bench_dppo_update.py --json benchmarks/dppo_update.json

A chain sample is one tuned denoising transition in one epoch: forward, backward and AdamW of the
paper's [512]³ actor (chunks of 4 x 7, 19 observations), plus the critic. Every variant runs in
turn, several rounds in one process, and the ratios are between medians of the same run.

- ``ours`` is ``DPPO._step`` as training calls it, in float32 and under bfloat16 autocast;
- ``gemm limit`` is forward, backward and AdamW of three bare [512 x 512]-sized linear layers with
  the actor's shapes and no activation: what the hardware allows;
- ``plain`` is the straightforward loop: random (chunk, step) pairs, the frozen and the tuned
  network both evaluated on every row, the critic on every row, per-row tables built in Python.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import save
from torch import nn

from genpolicy.finetune.dppo import DPPO, DPPOConfig
from genpolicy.policies import build_policy
from genpolicy.runs.environment import describe
from genpolicy.spec import ActionSpec, Feature, PolicySpec, TaskSpec

CHUNKS, STEPS, ROUNDS = 1024, 5, 15
TASK = TaskSpec(
    task="shapes of lift",
    robot="none",
    observations=(Feature("state", (19,)),),
    action=ActionSpec(tuple("abcdefg"), ("",) * 7, (-1.0,) * 7, (1.0,) * 7),
    control_mode="none",
    control_hz=20.0,
    max_episode_steps=100,
)


class NoEnv:
    """DPPO's constructor needs somewhere to start; this bench never steps."""

    num_envs, spec = 64, TASK

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        return {"state": np.zeros((64, 1, 19), np.float32)}


def ours(bf16: bool, activation: str) -> Callable[[], object]:
    config = {"name": "diffusion", "activation": activation}
    base = build_policy(config, PolicySpec(TASK, obs_steps=1, chunk=4, exec_steps=4))
    settings = DPPOConfig(tuned_steps=STEPS, sample_steps=STEPS, critic_warmup=0, bf16=bf16)
    algorithm = DPPO(base, NoEnv(), settings, seed=0)
    obs = torch.randn(CHUNKS, 19)
    chains = algorithm.policy.sample_chain(obs).states
    with torch.no_grad():
        old = algorithm._likelihood(obs, {"chain": chains})
    advantage, returns = torch.randn(2, CHUNKS)
    return lambda: algorithm._step(obs, {"chain": chains}, old, advantage, returns)


def gemm_limit(bf16: bool) -> Callable[[], object]:
    net = nn.Sequential(
        nn.Linear(28, 512), nn.Linear(512, 512), nn.Linear(512, 512), nn.Linear(512, 28)
    )
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
    x = torch.randn(CHUNKS * STEPS, 28)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = net(x).float().square().mean()
        loss.backward()
        optimizer.step()

    return step


def plain() -> Callable[[], object]:
    spec = PolicySpec(TASK, obs_steps=1, chunk=4, exec_steps=4)
    policy = build_policy({"name": "diffusion", "activation": "mish"}, spec)
    policy = policy.fine_tunable(STEPS, sample_steps=STEPS)
    frozen = copy.deepcopy(policy.net).requires_grad_(False)
    critic = nn.Sequential(
        nn.Linear(19, 256), nn.Mish(), nn.Linear(256, 256), nn.Mish(), nn.Linear(256, 1)
    )
    table, rows = policy.explore_table, CHUNKS * STEPS
    actor_opt = torch.optim.AdamW(policy.net.parameters(), 1e-4)
    critic_opt = torch.optim.AdamW(critic.parameters(), 1e-3)
    obs, x, x_next = torch.randn(rows, 19), torch.randn(rows, 28), torch.randn(rows, 28)
    old, advantage, returns = torch.randn(3, rows)
    inner = torch.randint(0, STEPS, (rows,))

    def evaluate(net: nn.Module) -> torch.Tensor:
        return net(x, net.time_features(table.t[inner]), net.obs_features(obs))

    def step() -> None:
        discount = torch.tensor([0.99 ** (STEPS - 1 - int(i)) for i in inner])
        with torch.no_grad():
            eps = evaluate(frozen)
        tuned = inner >= 0
        eps = torch.where(tuned[:, None], evaluate(policy.net), eps)
        x0 = (table.x_scale[inner, None] * x - table.eps_scale[inner, None] * eps).clamp(-1, 1)
        mean = table.x0_coef[inner, None] * x0 + table.x_coef[inner, None] * x
        normal = torch.distributions.Normal(mean, table.std[inner, None])
        log_prob = normal.log_prob(x_next).clamp(-5, 2).mean(1)
        ratio = (log_prob - old).clamp(-1, 1).exp()
        scaled = advantage * discount
        actor_loss = -torch.min(ratio * scaled, ratio.clamp(0.99, 1.01) * scaled).mean()
        critic_loss = (critic(obs).squeeze(1) - returns).square().mean()
        actor_opt.zero_grad()
        critic_opt.zero_grad()
        (actor_loss + 0.5 * critic_loss).backward()
        actor_opt.step()
        critic_opt.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    variants = {
        "ours, bf16, relu": ours(True, "relu"),
        "ours, bf16, mish": ours(True, "mish"),
        "ours, fp32, relu": ours(False, "relu"),
        "ours, fp32, mish": ours(False, "mish"),
        "gemm limit, bf16": gemm_limit(True),
        "gemm limit, fp32": gemm_limit(False),
        "plain, fp32, mish": plain(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(ROUNDS + 2):
        for name, step in variants.items():
            start = time.perf_counter()
            step()
            if round_ >= 2:
                seconds[name].append(time.perf_counter() - start)
    rate = {n: CHUNKS * STEPS / statistics.median(s) for n, s in seconds.items()}
    result = {
        "threads": args.threads,
        "chain_samples_per_s": {n: round(r) for n, r in rate.items()},
        "over_plain": {n: round(r / rate["plain, fp32, mish"], 2) for n, r in rate.items()},
        "rounds": ROUNDS,
        "machine": describe(),
    }
    save(result, args.json)


if __name__ == "__main__":
    main()
