"""The report's figures: numbers in, SVG out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from genpolicy.evaluate.statistics import wilson
from genpolicy.report.style import (
    AFTER,
    BEFORE,
    COLOURS,
    GRID,
    INK,
    PAPER,
    REFERENCE,
    figure,
    to_svg,
)

Array = NDArray[Any]
PER_DECADE = 10  # buckets of the histograms


def success_by_stage(stages: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> str:
    """Rates with their Wilson intervals, one row per stage."""
    with figure(0.42 * len(stages) + 0.7) as (fig, (ax,)):
        for row, stage in enumerate(stages):
            colour, rate = COLOURS[stage["name"]], stage["success_rate"]
            interval = [stage["success_lo"], stage["success_hi"]]
            ax.plot(interval, [row, row], color=colour, linewidth=5, alpha=0.35)
            ax.plot(rate, row, "o", color=colour, markersize=8)
            ax.text(1.03, row, f"{rate:.1%}", va="center", transform=ax.get_yaxis_transform())
        ax.set_yticks(range(len(stages)), [labels[stage["name"]] for stage in stages])
        ax.set_ylim(len(stages) - 0.5, -0.5)
        ax.set_xlim(0, 1.01)
        ax.xaxis.set_major_formatter(PercentFormatter(1))
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("success, 95 % interval")
        return to_svg(fig, "stages", "Success of every stage with its interval")


def imitation_curves(imitation: Mapping[str, Any], demonstrations: tuple[int, int]) -> str:
    """Success over gradient steps, for the few and for all demonstrations."""
    with figure(2.9) as (fig, (ax,)):
        for name, colour, count in zip(
            ("reference", "pretrain"), (REFERENCE, BEFORE), demonstrations[::-1], strict=True
        ):
            curve = imitation[name]["curve"]
            x = [point["iteration"] for point in curve]
            _band(ax, x, curve, colour, f"{count} demonstrations")
        _percent(ax)
        ax.set_xlim(0)
        ax.set_xlabel("gradient steps")
        ax.legend(loc="lower right")
        return to_svg(fig, "imitation", "Success of imitation over gradient steps")


def learning_curve(training: Mapping[str, Any], over: str, reference: float) -> str:
    """Success of DPPO over ``env_steps`` or ``wall_s``."""
    index, scale, label = {
        "env_steps": (0, 1e-3, "control steps in simulation, thousands"),
        "wall_s": (1, 1 / 60, "minutes"),
    }[over]
    with figure(2.9) as (fig, (ax,)):
        rollout = np.array(training["rollout"]).reshape(-1, 3)
        ax.plot(
            rollout[:, index] * scale,
            rollout[:, 2],
            color=AFTER,
            linewidth=1,
            alpha=0.5,
            label="while exploring",
        )
        x = [point[over] * scale for point in training["curve"]]
        _band(ax, x, training["curve"], AFTER, "evaluated")
        ax.axhline(reference, color=REFERENCE, linestyle="--", linewidth=1.2, label="reference")
        ax.plot(
            training["best"][over] * scale,
            next(
                p["success_rate"]
                for p in training["curve"]
                if p["env_steps"] == training["best"]["env_steps"]
            ),
            "o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=INK,
            label="kept",
        )
        _percent(ax)
        ax.set_xlim(0)
        ax.set_xlabel(label)
        ax.legend(loc="lower right")
        return to_svg(fig, f"rl-{over}", f"Success of fine-tuning over {label}")


def _band(
    ax: Axes, x: Sequence[float], curve: Sequence[Mapping[str, Any]], colour: str, label: str
) -> None:
    low, rate, high = ([point[f"success_{key}"] for point in curve] for key in ("lo", "rate", "hi"))
    ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    ax.plot(x, rate, "o-", color=colour, markersize=4, label=label)


def _percent(ax: Axes) -> None:
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1))


def chunk_paths(paths: Mapping[str, Array], titles: Mapping[str, str]) -> str:
    """Commanded displacement of sampled chunks, seen from the front (y to the right, z up)."""
    with figure(2.9, len(paths)) as (fig, axes):
        points = np.concatenate([p[..., 1:].reshape(-1, 2) for p in paths.values()])
        low, high = points.min(0) - 1, points.max(0) + 1
        for ax, (name, path) in zip(axes, paths.items(), strict=True):
            ax.plot(path[:, :, 1].T, path[:, :, 2].T, color=COLOURS[name], linewidth=1, alpha=0.45)
            ax.plot(path[:, -1, 1], path[:, -1, 2], ".", color=COLOURS[name], markersize=5)
            ax.plot(0, 0, "o", color=INK, markersize=5)
            left = (path[:, -1, 1] < 0).mean()
            ax.set_title(f"{titles[name]}: {left:.0%} left, {1 - left:.0%} right")
            ax.set_xlim(low[0], high[0])
            ax.set_ylim(low[1], high[1])
            ax.set_xlabel("sideways (y), cm")
        axes[0].set_ylabel("up (z), cm")
        for ax in axes[1:]:
            ax.tick_params(labelleft=False)
        return to_svg(fig, "chunks", "Sampled action chunks before and after fine-tuning")


def value_and_outcome(scores: Array, success: Array) -> str:
    """Share of successes by the value of an episode's first chunk, in five equal groups."""
    order = np.argsort(scores, kind="stable")
    groups = [g for g in np.array_split(order, 5) if len(g)]
    with figure(2.9) as (fig, (ax,)):
        for group in groups:
            x, rate = scores[group].mean(), success[group].mean()
            low, high = wilson(int(success[group].sum()), len(group))
            ax.plot([x, x], [low, high], color=BEFORE, linewidth=5, alpha=0.35)
            ax.plot(x, rate, "o", color=BEFORE, markersize=7)
        for outcome, height in ((False, 0.0), (True, 1.0)):
            chosen = scores[success == outcome]
            ax.plot(chosen, np.full(len(chosen), height), "|", color=INK, alpha=0.25, markersize=9)
        ax.set_ylim(-0.06, 1.06)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        ax.set_xlabel("value of the first chunk")
        ax.set_ylabel("success")
        return to_svg(fig, "value", "Success of episodes by the value of their first chunk")


def latency_histogram(values_us: Array, name: str, xlabel: str, limit_us: float) -> str:
    """Durations in logarithmic buckets, with the time that there is."""
    values = np.maximum(np.asarray(values_us, dtype=np.float64), 0.1)
    first = np.floor(np.log10(values.min()) * PER_DECADE)
    last = np.ceil(np.log10(max(values.max(), limit_us)) * PER_DECADE)
    edges = 10 ** (np.arange(first, last + 1) / PER_DECADE)
    with figure(2.5) as (fig, (ax,)):
        ax.hist(values, edges, color=COLOURS["deployed"], edgecolor=PAPER, linewidth=0.5)
        ax.axvline(limit_us, color=INK, linestyle="--", linewidth=1.2)
        ax.text(
            limit_us, 1.02, f"deadline {_duration(limit_us)}", ha="right",
            transform=ax.get_xaxis_transform(), fontsize=9,
        )  # fmt: skip
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(0.7)
        few = edges[-1] / edges[0] < 300  # decades alone would label one tick
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _duration(v)))
        ax.minorticks_off()
        ax.grid(color=GRID, axis="y")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        ax.set_xlabel(xlabel)
        return to_svg(fig, name, xlabel)


def durations(run: Sequence[Mapping[str, Any]]) -> str:
    """Where the demo's minutes went."""
    with figure(0.24 * len(run) + 0.6) as (fig, (ax,)):
        seconds = [stage["seconds"] for stage in run]
        ax.barh(range(len(run)), seconds, color=REFERENCE, height=0.65)
        for row, s in enumerate(seconds):
            ax.text(s, row, f" {s:.0f} s", va="center", fontsize=8)
        ax.set_yticks(range(len(run)), [stage["name"] for stage in run], fontsize=8)
        ax.set_ylim(len(run) - 0.5, -0.5)
        ax.set_xlim(0, 1.12 * max(seconds))
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("seconds")
        return to_svg(fig, "durations", "Duration of every stage")


def _duration(microseconds: float) -> str:
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size * 0.999:
            return f"{microseconds / size:g} {unit}"
    return f"{microseconds:g} µs"
