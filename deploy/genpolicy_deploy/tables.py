"""Results as plain text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from genpolicy_deploy.contract import Contract


def run_table(result: Mapping[str, Any]) -> str:
    """What ``run`` prints."""
    deploy, stage = result["deploy"], result["stage"]
    rows = [("state", result["state"])]
    if stage["episodes"]:
        rate, low, high = (100 * stage[f"success_{k}"] for k in ("rate", "lo", "hi"))
        rows.append(
            ("success", f"{rate:.0f} % of {stage['episodes']} episodes [{low:.0f}, {high:.0f}]")
        )
    rows += [
        ("ticks", f"{deploy['ticks']} ({deploy['missed_deadlines']} deadlines missed)"),
        ("lateness, µs", _quantiles(deploy["lateness_us"])),
        ("inference, ms", _quantiles(deploy["inference_ms"])),
        ("blocked by limits", _counts(deploy["envelope_violations_blocked"], result["violations"])),
    ]
    if result["events"]:
        rows.append(("events", _items(result["events"])))
    if denied := {k: v for k, v in result["realtime"].items() if v.startswith("not")}:
        rows.append(("real time", _items(denied)))
    if result["log"]:
        rows.append(("log", result["log"]))
    return _align(rows)


def teleop_line(result: dict[str, Any]) -> str:
    """What a teleoperation came to."""
    count, successes = len(result["episodes"]), result["successes"]
    return f"{count} episodes, {successes} of them successes: {result['log']}"


def bench_table(result: Mapping[str, Any]) -> str:
    """What ``bench`` prints."""
    lines = [f"{result['tick_hz']:g} Hz, lateness in µs, inference in ms"]
    lines.append(
        f"{'phase':8}{'ticks':>8}{'missed':>8}{'p50':>9}{'p99':>9}{'p99.9':>9}{'max':>10}"
        f"{'inf p50':>9}{'inf p99':>9}"
    )
    for name, phase in result["phases"].items():
        late, inference = phase["lateness_us"], phase.get("inference_ms")
        line = f"{name:8}{phase['ticks']:8}{phase['missed_deadlines']:8}"
        line += f"{late['p50']:9.1f}{late['p99']:9.1f}{late['p999']:9.1f}{late['max']:10.1f}"
        if inference:
            line += f"{inference['p50']:9.3f}{inference['p99']:9.3f}"
        lines.append(line)
    granted = next(iter(result["phases"].values()))["realtime"]
    return "\n".join([*lines, _items(granted)])


def contract_table(path: str, contract: Contract) -> str:
    """What ``inspect`` prints."""
    spec, task = contract.spec, contract.spec.task
    rows = [
        ("file", path),
        ("task", f"{task.task} on {task.robot}, {task.control_mode} at {task.control_hz:g} Hz"),
        ("observations", _items({f.name: f"{f.dim} {f.unit}".strip() for f in task.observations})),
        ("actions", ", ".join(task.action.names)),
        ("horizons", f"observe {spec.obs_steps}, plan {spec.chunk}, execute {spec.exec_steps}"),
        ("sampler", _items(contract.sampler)),
        ("samples", f"{contract.num_samples}, temperature {contract.temperature:g}"),
        ("value function", _value_text(contract)),
        ("real-time chunking", _items(asdict(contract.rtc)) if contract.rtc else "none"),
        ("evaluation", stage_text(contract.evaluation) if contract.evaluation else "none"),
        ("checkpoint", contract.checkpoint_hash[:16]),
        ("parity error", f"{contract.parity_max_abs_err:.1e}"),
        ("golden pair", "reproduced on this machine"),
        ("written by", _items(contract.versions)),
    ]
    return _align(rows)


def _value_text(contract: Contract) -> str:
    if not contract.has_scores:
        return "none"
    return _items(contract.value) if contract.value else "yes, not described"


def stage_text(evaluation: Mapping[str, Any]) -> str:
    """One line about an evaluation: what its task is judged by, with the 95 % interval."""
    if evaluation.get("score") == "return":
        mean, lo, hi = (f"{evaluation[f'return_{k}']:.4g}" for k in ("mean", "lo", "hi"))
        return f"return {mean} [{lo}, {hi}], {evaluation['episodes']} episodes"
    rate, lo, hi = (f"{evaluation[f'success_{k}']:.3f}" for k in ("rate", "lo", "hi"))
    return f"success {rate} [{lo}, {hi}], {evaluation['episodes']} episodes"


def replay_table(result: Mapping[str, Any]) -> str:
    """What ``replay`` prints."""
    verdict = "the same controller" if result["passed"] else "DIFFERENT ACTIONS"
    rows = [
        ("chunks", f"{result['identical']} of {result['chunks']} bit-identical: {verdict}"),
        ("largest difference", f"{result['max_abs_err']:.3g}"),
        ("same build", "yes" if result["same_build"] else "no: compared within a tolerance"),
        ("log complete", "yes" if result["complete"] else "no: it ends early or has gaps"),
    ]
    return _align(rows)


def _quantiles(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:g}" for name, value in values.items())


def _counts(total: int, kinds: Mapping[str, int]) -> str:
    return f"{total} ({_items(kinds)})" if kinds else str(total)


def _items(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def _align(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:{width}}{value}" for name, value in rows)
