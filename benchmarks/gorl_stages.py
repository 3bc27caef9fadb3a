"""GoRL in one picture: latent, decoder and stages of one run, with the returns beside them.

    genpolicy finetune experiment=scratch_gorl task=finger_spin seed=1000 keep=99 eval_every=8 \\
        iterations=240 algo.stages=[80,80] algo.prior_coef=2e-4 run_dir=runs/finger
    python benchmarks/gorl_stages.py runs/finger --out benchmarks/gorl_stages.png

The task must have two actions, and the run must have kept its checkpoints. Of each stage it shows
the last one, at one observation that the final policy meets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import genpolicy_sim
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from common import curve
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

import genpolicy
from genpolicy.policies.latent import LatentPolicy
from genpolicy.spec import Observation

SEED, STEPS, SAMPLES = 500, 400, 600
ENCODER = "#111111"


def last_of_each_stage(run: Path) -> list[Path]:
    """The newest checkpoint of every stage; a stage's number is in metrics.csv."""
    stages = {int(float(row["step/update"])): int(float(row["gorl/stage"])) for row in curve(run)}
    found = {stages[int(p.name.split("_")[1])]: p for p in sorted(run.glob("checkpoints/step_*"))}
    return [found[stage] for stage in sorted(found)]


def met(policy: LatentPolicy) -> Observation:
    """An observation in the middle of an episode of ``policy``."""
    env = genpolicy_sim.make(policy.spec.task.task, 1)
    obs = env.reset(SEED)
    for _ in range(STEPS):
        obs = env.step(policy.act(obs)).obs
    return obs


@torch.no_grad()
def draw_stage(axes: list[Axes], policy: LatentPolicy, obs: Observation, title: str) -> None:
    """Above the plane of z, below that of actions; a colour is one direction of z."""
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.standard_normal((SAMPLES, 2), dtype=np.float32))
    flat = policy.normalizer.obs({k: torch.from_numpy(v) for k, v in obs.items()})
    mean, std = (part[0] for part in policy.distribution(flat))
    hue = torch.atan2(noise[:, 1], noise[:, 0])
    executed = policy.decode(flat, mean[None, None])[0, 0]
    decoded = policy.decode(flat, noise[None])[0]
    above, below = axes
    above.scatter(*noise.T, c=hue, cmap="hsv", s=4, alpha=0.5, lw=0)
    below.scatter(*decoded.T, c=hue, cmap="hsv", s=4, alpha=0.5, lw=0)
    for k in (1, 2):
        width, height = (2 * k * std).tolist()
        above.add_patch(Ellipse(mean.tolist(), width, height, fill=False, ec=ENCODER, lw=1.4))
    above.plot(*mean, "+", color=ENCODER, ms=9, mew=2)
    below.plot(*executed, "+", color=ENCODER, ms=9, mew=2)
    below.add_patch(Rectangle((-1, -1), 2, 2, fill=False, ec="0.5", lw=1, ls="--"))
    above.set(title=title, xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal")
    below.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal")


def draw(run: Path) -> Figure:
    """A column per stage, and the returns."""
    folders = last_of_each_stage(run)
    policies = [genpolicy.load(folder) for folder in folders]
    obs = met(policies[-1])
    figure = plt.figure(figsize=(2.4 * len(policies) + 4.2, 5), layout="constrained")
    grid = figure.add_gridspec(2, len(policies) + 1, width_ratios=[1] * len(policies) + [1.6])
    axes = np.array(
        [[figure.add_subplot(grid[i, j]) for j in range(len(policies))] for i in range(2)]
    )
    for stage, policy in enumerate(policies):
        what = "identity" if policy.config.identity else "a new decoder"
        draw_stage(list(axes[:, stage]), policy, obs, f"stage {stage}: {what}")
    axes[0, 0].set_ylabel("latent z\npoints: prior N(0, I)\nellipses: encoder")
    axes[1, 0].set_ylabel("action = decoder(z)\n+: of the encoder's mean\ndashed: limits")
    draw_returns(figure.add_subplot(grid[:, -1]), run)
    return figure


def draw_returns(axis: Axes, run: Path) -> None:
    """Evaluations during training."""
    values = np.array(
        [
            [float(row[k]) for k in ("step/env", "gorl/stage", "eval/return_mean")]
            for row in curve(run)
        ]
    )
    for number in np.unique(values[:, 1]):
        steps, _, value = values[values[:, 1] == number].T
        axis.plot(steps / 1e6, value, "o-", ms=3, label=f"stage {number:.0f}")
    axis.set(xlabel="env steps, millions", title="return of the executed policy")
    axis.grid(alpha=0.3)
    axis.legend()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    draw(args.run).savefig(args.out, dpi=130)


if __name__ == "__main__":
    main()
