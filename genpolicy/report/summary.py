"""``report.json``: every number of the demo, gathered from the files that its stages wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genpolicy.evaluate.evaluator import Evaluation
from genpolicy.evaluate.statistics import compare
from genpolicy.runs import environment
from genpolicy.runs.checkpoint import resolve
from genpolicy.runs.files import read_json
from genpolicy.runs.logger import read_csv

STAGE_KEYS = ("success_rate", "success_lo", "success_hi", "episodes", "seed0")
# Stages of the report and the folders where `genpolicy eval` left them.
EVALUATED = {
    "pretrained": "eval_pretrained",
    "reference": "eval_reference",
    "pretrained_reranked": "eval_pretrained_reranked",
    "finetuned": "eval_finetuned",
    "reranked": "eval_reranked",
}
COMPARED = (
    ("pretrained", "finetuned"),
    ("pretrained", "pretrained_reranked"),
    ("finetuned", "reranked"),
)


class Finished(NamedTuple):
    """A stage as the report lists it."""

    name: str
    title: str
    command: str
    seconds: float


def summarise(root: Path, finished: Sequence[Finished], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything but pictures.

    Args:
        root: the demo's folder, all stages finished.
        finished: the stages in order.
        settings: the demo's configuration.
    """
    evaluations = {name: _evaluation(root / folder) for name, folder in EVALUATED.items()}
    deployed = read_json(root / "deploy" / "deploy.json")
    stages = [{"name": name, **_stage(found.to_dict())} for name, found in evaluations.items()]
    stages.append({"name": "deployed", **_stage(deployed["stage"])})
    about = environment.describe()
    return {
        "task": deployed["task"],
        "stages": stages,
        "training": _training(root / "finetune"),
        "deploy": deployed["deploy"],
        "versions": about.pop("versions"),
        "comparisons": [
            _comparison(first, second, evaluations[first], evaluations[second])
            for first, second in COMPARED
        ],
        "imitation": {name: imitation(root / name) for name in ("pretrain", "reference")},
        "export": _export(root, evaluations["reranked"]),
        "hardware": about,
        "settings": settings,
        "run": [stage._asdict() for stage in finished],
        "wall_s": sum(stage.seconds for stage in finished),
    }


def _evaluation(folder: Path) -> Evaluation:
    return Evaluation.from_dict(read_json(folder / "eval.json"))


def _stage(data: dict[str, Any]) -> dict[str, Any]:
    return {key: data[key] for key in STAGE_KEYS}


def _comparison(name: str, other: str, first: Evaluation, second: Evaluation) -> dict[str, Any]:
    """McNemar's exact test over the same initial states."""
    test = compare(first.success, second.success)
    return {"first": name, "second": other, "episodes": first.episodes, **test._asdict()}


def _training(folder: Path) -> dict[str, Any]:
    """Cost of the fine-tuning, and its learning curve."""
    rows = read_csv(folder / "metrics.csv")
    last, evaluated = rows[-1], [row for row in rows if "eval/success_rate" in row]
    best = int(resolve(folder, prefer="best").name.removeprefix("step_"))
    chosen = next((row for row in rows if row["step/update"] == best), last)
    return {
        "env_steps": int(last["step/env"]),
        "wall_s": last["step/wall_s"],
        "env_steps_per_s": last["step/env"] / max(last["step/wall_s"], 1e-9),
        "best": {"env_steps": int(chosen["step/env"]), "wall_s": chosen["step/wall_s"]},
        "seed0": read_json(sorted((folder / "eval").glob("*.json"))[-1])["seed0"],
        "curve": [
            {
                "env_steps": int(row["step/env"]),
                "wall_s": row["step/wall_s"],
                **{key: row[f"eval/{key}"] for key in STAGE_KEYS[:3]},
                "episodes": int(row["eval/episodes"]),
            }
            for row in evaluated
        ],
        "rollout": [
            [int(row["step/env"]), row["step/wall_s"], row["rollout/success_rate"]]
            for row in rows
            if "rollout/success_rate" in row
        ],
    }


def imitation(folder: Path) -> dict[str, Any]:
    """The curve over gradient steps, and whether its second half still rises.

    "Flat" is: from the evaluation at half of the steps to the last one, over the same initial
    states, success does not rise significantly (exact McNemar, 5 %).
    """
    paths = sorted((folder / "eval").glob("step_*.json"))
    steps = np.array([int(path.stem.removeprefix("step_")) for path in paths])
    found = [Evaluation.from_dict(read_json(path)) for path in paths]
    half = int(np.abs(steps - steps[-1] / 2).argmin())
    test = compare(found[half].success, found[-1].success)
    rises = half < len(paths) - 1 and test.difference > 0 and test.p_value < 0.05
    return {
        "curve": [
            {"iteration": int(step), **_stage(evaluation.to_dict())}
            for step, evaluation in zip(steps, found, strict=True)
        ],
        "half_iteration": int(steps[half]),
        "second_half": {"difference": test.difference, "p_value": test.p_value},
        "flat": half < len(paths) - 1 and not rises,
    }


def _export(root: Path, reranked: Evaluation) -> dict[str, Any]:
    """How far the ONNX controller does in simulation what the checkpoints do."""
    onnx = _evaluation(root / "eval_onnx")
    same = onnx.success == reranked.success[: onnx.episodes]
    return {
        "file": "controller.onnx",
        "bytes": (root / "controller.onnx").stat().st_size,
        "episodes": onnx.episodes,
        "same_outcome": int(same.sum()),
        **{key: getattr(onnx, key) for key in STAGE_KEYS[:3]},
    }
