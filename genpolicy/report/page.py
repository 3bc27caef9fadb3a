"""``report.html``: one page without any outside resource, from report.json and a few arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.report import figures
from genpolicy.report.html import card, escape, number, table, video
from genpolicy.runs.files import write_text

LABELS = {
    "reference": "imitation, all demonstrations",
    "pretrained": "imitation, few demonstrations",
    "pretrained_reranked": "… with V-GPS",
    "finetuned": "… fine-tuned by DPPO",
    "reranked": "… fine-tuned, with V-GPS",
    "deployed": "ONNX, robot in real time",
}
COMPARISONS = {
    ("pretrained", "finetuned"): "imitation → fine-tuned by DPPO",
    ("pretrained", "pretrained_reranked"): "imitation → imitation with V-GPS",
    ("finetuned", "reranked"): "fine-tuned → fine-tuned with V-GPS",
}


@dataclass(frozen=True)
class Material:
    """What the page shows besides the numbers of report.json.

    Attributes:
        chunks: of ``behaviour.first_chunks``.
        scores: of ``behaviour.first_scores``.
        inference_us: Time of every chunk's computation.
        lateness_us: Of every tick of the control loop.
        tick_hz: Rate of that loop.
        film: The video, or None.
        filmed: Initial states that it shows.
        why_no_film: Said in place of the video.
    """

    chunks: Mapping[str, Any]
    scores: Mapping[str, Any]
    inference_us: NDArray[np.floating]
    lateness_us: NDArray[np.floating]
    tick_hz: float
    film: Path | None
    filmed: Sequence[int]
    why_no_film: str = ""


def write_page(path: Path, report: Mapping[str, Any], material: Material) -> None:
    """Write the page."""
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    parts = {
        **_headline(report),
        **_success(report),
        **_imitation(report),
        **_training(report),
        **_behaviour(report, material),
        **_deployment(report, material),
        **_reproduction(report),
        "video": _video(material),
    }
    write_text(path, template.substitute(parts))


def _headline(report: Mapping[str, Any]) -> dict[str, str]:
    stage, training, deploy = _stages(report), report["training"], report["deploy"]
    before, after = stage["pretrained"], stage["reranked"]
    minutes = number(training["wall_s"], f"{training['wall_s'] / 60:.1f}", "training.wall_s")
    demos = report["settings"]["demonstrations"]
    plain = f"{before['success_rate']:.0%} → {after['success_rate']:.0%}"
    hardware, ticks = report["hardware"], f"{deploy['ticks']:,}"
    lead = (
        f"A diffusion policy imitated from {demos} demonstrations succeeds in "
        f"{_rate(before)} of the episodes. After {minutes} minutes of reinforcement learning in "
        f"simulation, and with V-GPS choosing among {report['settings']['num_samples']} of its "
        f"samples, it succeeds in {_rate(after)}. It runs as one ONNX file at "
        f"{deploy['control_hz']:g} Hz with {_missed(deploy)} missed deadlines in "
        f"{number(deploy['ticks'], ticks, 'deploy.ticks')} ticks of its loop."
    )
    cards = [
        card(_rate(stage["finetuned"]), "fine-tuned, without re-ranking"),
        card(_rate(stage["deployed"]), f"on the real-time robot, {_episodes(stage['deployed'])}"),
        card(f"{minutes} min", "of DPPO on this machine"),
        card(
            f"{_milliseconds(deploy, 'p50')} ms",
            f"inference of one chunk, p99 {_milliseconds(deploy, 'p99')} ms",
        ),
        card(f"{report['wall_s'] / 60:.1f} min", "for the whole demo"),
    ]
    return {
        "headline": f"{plain} on Panda Lift",
        "title": f'<span class="before">{_rate(before, 0)}</span> → '
        f'<span class="after">{_rate(after, 0)}</span>',
        "lead": lead,
        "cards": "".join(cards),
        "hardware_line": escape(f"{hardware['cores']} cores, {hardware['cpu']}"),
    }


def _success(report: Mapping[str, Any]) -> dict[str, str]:
    stage = _stages(report)
    shown = [stage[name] for name in LABELS]
    return {
        "fig_stages": figures.success_by_stage(shown, LABELS),
        "table_stages": table(
            ["stage", "success", "95 % interval", "episodes"],
            [[LABELS[s["name"]], _rate(s), _interval(s), _episodes(s, "")] for s in shown],
        ),
        "seed0": str(shown[0]["seed0"]),
        "selection": str(report["training"]["seed0"]),
        "table_comparisons": table(
            ["", "difference", "95 % interval", "only then solved", "no longer solved", "p"],
            [_comparison(i, c) for i, c in enumerate(report["comparisons"])],
        ),
    }


def _comparison(i: int, test: Mapping[str, Any]) -> list[str]:
    key = f"comparisons.{i}"
    points = {k: f"{100 * test[k]:+.1f}" for k in ("difference", "lo", "hi")}
    p = "&lt; 0.0001" if test["p_value"] < 1e-4 else f"{test['p_value']:.4f}"
    return [
        COMPARISONS[test["first"], test["second"]],
        number(test["difference"], f"{points['difference']} points", f"{key}.difference"),
        f"{points['lo']} to {points['hi']}",
        number(test["gained"], str(test["gained"]), f"{key}.gained"),
        number(test["lost"], str(test["lost"]), f"{key}.lost"),
        number(test["p_value"], p, f"{key}.p_value"),
    ]


def _imitation(report: Mapping[str, Any]) -> dict[str, str]:
    settings, base = report["settings"], report["imitation"]["pretrain"]
    counts = settings["demonstrations"], settings["reference_demonstrations"]
    change, half = base["second_half"], base["half_iteration"]
    steps = base["curve"][-1]["iteration"]
    verdict = (
        "so more imitation would not have helped"
        if base["flat"]
        else '<strong class="bad">so this base is not converged</strong>, and part of what '
        "fine-tuning gained may be had by more imitation"
    )
    text = (
        f"<p>More gradient steps do not lift a policy that has seen only {counts[0]} "
        f"demonstrations, and that is the situation in which people reach for reinforcement "
        f"learning. From step {half:,} to step {steps:,} its success changed by "
        f"{100 * change['difference']:+.1f} points (p = {change['p_value']:.2f}, paired), "
        f"{verdict}.</p><p>The same recipe on {counts[1]} demonstrations is the reference: what "
        f"{counts[1] - counts[0]} more demonstrations would have bought.</p>"
    )
    return {
        "fig_imitation": figures.imitation_curves(report["imitation"], counts),
        "text_imitation": text,
    }


def _training(report: Mapping[str, Any]) -> dict[str, str]:
    training, reference = report["training"], _stages(report)["reference"]["success_rate"]
    steps, speed = training["env_steps"], training["env_steps_per_s"]
    text = (
        f"{number(steps, f'{steps:,}', 'training.env_steps')} control steps at "
        f"{number(speed, f'{speed:,.0f}', 'training.env_steps_per_s')} per second, learning and "
        f"evaluation included. The only reward is 1 when the cube is lifted. The kept checkpoint "
        f"is the one whose interval had the highest lower end (circle)."
    )
    return {
        "text_training": text,
        "fig_rl_steps": figures.learning_curve(training, "env_steps", reference),
        "fig_rl_time": figures.learning_curve(training, "wall_s", reference),
    }


def _behaviour(report: Mapping[str, Any], material: Material) -> dict[str, str]:
    chunks, scores = material.chunks, material.scores
    titles = {"pretrained": "before", "finetuned": "after"}
    samples = len(next(iter(chunks["paths"].values())))
    ranked = ""
    if scores["auc"] is not None:
        ranked = (
            f" A success outranks a failure in {scores['auc']:.0%} of all pairs (chance: 50 %)."
        )
    return {
        "fig_chunks": figures.chunk_paths(chunks["paths"], titles),
        "caption_chunks": f"{samples} chunks sampled in one initial state (seed "
        f"{chunks['seed']}), as commanded displacement of the gripper seen from the front, with "
        "the same draws before and after. The expert goes round the cube by either side, so "
        "imitation is bimodal. Shown is the state where the base is most undecided.",
        "fig_value": figures.value_and_outcome(scores["scores"], scores["success"]),
        "caption_value": "What the value function says of the first chunk of every evaluated "
        "episode of the pretrained policy, and how the episode ended (ticks: single episodes; "
        f"dots: fifths, with intervals).{ranked}",
    }


def _deployment(report: Mapping[str, Any], material: Material) -> dict[str, str]:
    deploy, exported = report["deploy"], report["export"]
    stage = _stages(report)["deployed"]
    lateness, blocked = deploy["lateness_us"], deploy["envelope_violations_blocked"]
    period_us, same = 1e6 / deploy["control_hz"], exported["same_outcome"]
    late = [
        f"{name} {number(lateness[key], f'{lateness[key]:,.0f}', f'deploy.lateness_us.{key}')} µs"
        for name, key in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"), ("max", "max"))
    ]
    text = (
        f"The controller is one ONNX file of {exported['bytes'] / 1e6:.1f} MB. In simulation it "
        f"ends {number(same, str(same), 'export.same_outcome')} of "
        f"{exported['episodes']} episodes as the checkpoints do. Then it drove the simulated "
        f"robot, a separate process that keeps to the wall clock: {_rate(stage)} of "
        f"{_episodes(stage)} succeeded."
    )
    rows = [
        ["control rate", f"{deploy['control_hz']:g} Hz; commands at {material.tick_hz:g} Hz"],
        ["missed deadlines", f"{_missed(deploy)} of {deploy['ticks']:,} ticks"],
        ["lateness of a tick", "; ".join(late)],
        [
            "inference of a chunk",
            f"p50 {_milliseconds(deploy, 'p50')} ms; p99 {_milliseconds(deploy, 'p99')} ms",
        ],
        [
            "commands held back by the safety envelope",
            number(blocked, f"{blocked:,}", "deploy.envelope_violations_blocked"),
        ],
    ]
    return {
        "text_deploy": text,
        "table_deploy": table(["", ""], rows, numeric=2),
        "fig_inference": figures.latency_histogram(
            material.inference_us, "inference", "inference of one chunk", period_us
        ),
        "caption_inference": f"{len(material.inference_us):,} chunks, each with "
        f"{report['settings']['num_samples']} samples and their scores, beside the running loop.",
        "fig_lateness": figures.latency_histogram(
            material.lateness_us, "lateness", "lateness of a tick", 1e6 / material.tick_hz
        ),
        "caption_lateness": f"{len(material.lateness_us):,} ticks of the control loop.",
    }


def _reproduction(report: Mapping[str, Any]) -> dict[str, str]:
    hardware, git = report["hardware"], report["hardware"]["git"]
    commit = git.get("commit", "not a checkout")[:14] + (" (modified)" if git.get("dirty") else "")
    facts = {
        "processor": f"{hardware['cpu']}, {hardware['cores']} cores",
        "GPU": ", ".join(hardware["gpus"]) or "none",
        "system": hardware["platform"],
        "Python": hardware["python"],
        **report["versions"],
        "commit": commit,
    }
    lines = [f"# {s['title']}\n{s['command']}" for s in report["run"]]
    return {
        "text_run": "<code>genpolicy demo</code> ran these commands, which work one by one as "
        f"well. All randomness follows from seed {report['settings']['seed']}.",
        "commands": escape("\n".join(lines), quote=False),
        "fig_durations": figures.durations(report["run"]),
        "table_versions": table(
            ["", ""], [[escape(k), escape(str(v))] for k, v in facts.items()], numeric=2
        ),
    }


def _video(material: Material) -> str:
    if material.film is None:
        return f'<p class="note">{escape(material.why_no_film)}</p>'
    seeds = ", ".join(str(seed) for seed in material.filmed)
    caption = (
        f"The same initial states (seeds {seeds}): left the pretrained policy, right the "
        "fine-tuned one with V-GPS. These are the first states that only the second solves. "
        "Real speed."
    )
    label = "The pretrained policy fails, the fine-tuned one lifts the cube"
    return f"<figure>{video(material.film, label)}<figcaption>{caption}</figcaption></figure>"


def _stages(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {stage["name"]: stage for stage in report["stages"]}


def _rate(stage: Mapping[str, Any], digits: int = 1) -> str:
    rate = stage["success_rate"]
    return number(rate, f"{100 * rate:.{digits}f} %", f"stages.{stage['name']}.success_rate")


def _interval(stage: Mapping[str, Any]) -> str:
    ends = [
        number(stage[k], f"{100 * stage[k]:.1f}", f"stages.{stage['name']}.{k}")
        for k in ("success_lo", "success_hi")
    ]
    return " – ".join(ends) + " %"


def _episodes(stage: Mapping[str, Any], unit: str = " episodes") -> str:
    count = stage["episodes"]
    return number(count, f"{count}{unit}", f"stages.{stage['name']}.episodes")


def _missed(deploy: Mapping[str, Any]) -> str:
    missed = deploy["missed_deadlines"]
    return number(missed, f"{missed:,}", "deploy.missed_deadlines")


def _milliseconds(deploy: Mapping[str, Any], key: str) -> str:
    value = deploy["inference_ms"][key]
    return number(value, f"{value:.1f}", f"deploy.inference_ms.{key}")
