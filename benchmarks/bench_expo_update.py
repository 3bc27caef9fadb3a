"""Seconds of EXPO's update at UTD 20, batch 256, beside a straightforward loop of the same maths.

    python benchmarks/bench_expo_update.py --json benchmarks/expo_update.json

The paper's nets (ten critics and an edit policy of [256]³) around a flow policy of [256]³ with four
Euler steps, N = 8; chunks of 4 x 7, 19 observations. One update is 20 critic steps and, on the last
batch, one step of base, edit policy and temperature. All variants run in turn, several rounds in
one process; the ratios are between medians of the same run.

- ``ours`` draws the base's samples of the next state in every critic step, as the paper does;
- ``stored`` draws them once per state (``algo.stored_samples``, the default);
- ``bf16`` compares candidates and imitates in bfloat16 (the default where the hardware has it);
- ``plain`` has one module per critic and a loop over them, evaluates all of them wherever a pair is
  wanted, and repeats the observation for every sample.
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
from torch import Tensor, nn

from genpolicy.finetune.expo import EXPO, EXPOConfig
from genpolicy.policies import build_policy
from genpolicy.policies.base import ChunkPolicy
from genpolicy.policies.gaussian import GaussianConfig, GaussianMLP
from genpolicy.runs.environment import describe
from genpolicy.spec import ActionSpec, Feature, PolicySpec, TaskSpec

UTD, BATCH, SAMPLES, CRITICS, ROUNDS = 20, 256, 8, 10, 5
TASK = TaskSpec(
    task="shapes of lift", robot="none", observations=(Feature("state", (19,)),),
    action=ActionSpec(tuple("abcdefg"), ("",) * 7, (-1.0,) * 7, (1.0,) * 7), control_mode="none",
    control_hz=20.0, max_episode_steps=100,
)  # fmt: skip
SPEC = PolicySpec(TASK, obs_steps=1, chunk=4, exec_steps=4)


class NoEnv:
    """EXPO's constructor needs somewhere to start; this bench never steps."""

    num_envs, spec = 64, TASK

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        return {"state": np.zeros((64, 1, 19), np.float32)}


def base() -> ChunkPolicy:
    return build_policy({"name": "flow", "hidden": [256] * 3, "sample_steps": 4}, SPEC)


def transitions(count: int) -> dict[str, Tensor]:
    return {
        "obs": torch.randn(count, 19),
        "next_obs": torch.randn(count, 19),
        "chunk": torch.rand(count, 28) * 2 - 1,
        "reward": torch.rand(count),
        "discount": torch.full((count,), 0.96),
    }


def ours(stored: bool, bf16: bool) -> Callable[[], object]:
    config = EXPOConfig(
        updates=UTD, actor_every=UTD, batch_size=BATCH, samples=SAMPLES, critics=CRITICS,
        stored_samples=stored, bf16=bf16, offline_ratio=0.0, value_range=(0.0, 1.0),
    )  # fmt: skip
    algorithm = EXPO(base(), NoEnv(), config, seed=0)
    rows = transitions(5000) | {"ended": torch.zeros(5000, dtype=torch.bool)}
    algorithm.replay.add(**algorithm.extend(rows))
    algorithm.largest_reward = 1.0
    return algorithm.update


def plain() -> Callable[[], object]:
    """EXPO written down one network at a time."""
    policy, rows = base(), transitions(5000)
    edit = GaussianMLP(19 + 28, (256,) * 3, 28, GaussianConfig(init_std=0.5, min_std=1e-3))
    critics = nn.ModuleList(critic() for _ in range(CRITICS))
    targets = copy.deepcopy(critics).requires_grad_(False)
    average = copy.deepcopy(policy.net)
    log_alpha = torch.zeros((), requires_grad=True)
    optimizers = {
        name: torch.optim.Adam(parameters, 3e-4)
        for name, parameters in (
            ("critics", critics.parameters()), ("edit", edit.parameters()),
            ("base", policy.net.parameters()), ("alpha", [log_alpha]),
        )
    }  # fmt: skip

    def descend(name: str, loss: Tensor) -> None:
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()

    def edited(obs: Tensor, chunk: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = edit(torch.cat([obs, chunk], 1))
        normal = torch.distributions.Normal(mean, std)
        u = normal.rsample()
        log_prob = (normal.log_prob(u) - torch.log(1 - u.tanh() ** 2 + 1e-6)).sum(1)
        return (chunk + 0.1 * u.tanh()).clamp(-1, 1), log_prob

    def value(obs: Tensor) -> Tensor:
        repeated = obs.repeat_interleave(SAMPLES, 0)
        noise = {"noise": torch.randn(len(repeated), 1, 4, 7)}
        chunks = policy.generate(repeated, noise, True)[:, 0].clamp(-1, 1)
        both = torch.stack([chunks, edited(repeated, chunks)[0]], 1)  # [B * N, 2, A]
        inputs = torch.cat([repeated[:, None].expand(-1, 2, -1), both], 2).flatten(0, 1)
        q = torch.stack([target(inputs)[:, 0] for target in targets])
        q = q.unflatten(1, (len(obs), 2 * SAMPLES))
        best = q[torch.randperm(CRITICS)[:2]].amin(0).argmax(1)
        chosen = both.unflatten(0, (len(obs), SAMPLES)).flatten(1, 2)[range(len(obs)), best]
        q = torch.stack([target(torch.cat([obs, chosen], 1))[:, 0] for target in targets])
        return q[torch.randperm(CRITICS)[:2]].amin(0)

    def update() -> None:
        for _ in range(UTD):
            index = torch.randint(5000, (BATCH,))
            batch = {name: column[index] for name, column in rows.items()}
            with torch.no_grad():
                y = batch["reward"] + batch["discount"] * value(batch["next_obs"])
            pairs = torch.cat([batch["obs"], batch["chunk"]], 1)
            descend("critics", sum((c(pairs)[:, 0] - y).square().mean() for c in critics))
            for critic_, target in zip(critics, targets, strict=True):
                for new, old in zip(critic_.parameters(), target.parameters(), strict=True):
                    old.data.copy_(0.005 * new.data + 0.995 * old.data)
        loss, _ = policy.loss(
            {"obs": {"state": batch["obs"][:, None]}, "actions": batch["chunk"].reshape(-1, 4, 7)}
        )
        descend("base", loss)
        for new, old in zip(policy.net.parameters(), average.parameters(), strict=True):
            old.data.copy_(0.001 * new.data + 0.999 * old.data)
        chunk, log_prob = edited(batch["obs"], batch["chunk"])
        pairs = torch.cat([batch["obs"], chunk], 1)
        q = torch.stack([c(pairs)[:, 0] for c in critics]).mean(0)
        descend("edit", (log_alpha.exp().detach() * log_prob - q).mean())
        descend("alpha", -(log_alpha * (log_prob.detach() - 14)).mean())

    return update


def critic() -> nn.Module:
    layers: list[nn.Module] = []
    for width in (19 + 28, 256, 256):
        layers += [nn.Linear(width, 256), nn.LayerNorm(256), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(256, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    variants = {
        "plain": plain(),
        "ours": ours(False, False),
        "ours, stored": ours(True, False),
        "ours, bf16": ours(False, True),
        "ours, stored, bf16": ours(True, True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for round_number in range(ROUNDS + 1):
        for name, update in variants.items():
            start = time.perf_counter()
            update()
            if round_number:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    save(
        {
            "utd": UTD, "batch": BATCH, "samples": SAMPLES, "critics": CRITICS, "rounds": ROUNDS,
            "median_s": {name: round(value, 4) for name, value in medians.items()},
            "times_faster_than_plain": {
                name: round(medians["plain"] / value, 2) for name, value in medians.items()
            },
            "machine": describe(),
        },
        args.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
