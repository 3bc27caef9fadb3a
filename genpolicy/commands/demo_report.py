"""The demo's last stage: ``report.html`` and ``report.json`` from what the others left."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import genpolicy_sim
import numpy as np
from genpolicy_deploy.flight_log import read_log
from genpolicy_sim.rendering import backend, render

from genpolicy.commands.stages import Stage
from genpolicy.evaluate.evaluator import Evaluation
from genpolicy.report.behaviour import first_chunks, first_scores
from genpolicy.report.films import film_rescues
from genpolicy.report.page import Material, write_page
from genpolicy.report.summary import EVALUATED, Finished, summarise
from genpolicy.runs.files import read_json, write_json
from genpolicy.runs.load import load, load_value
from genpolicy.runs.progress import say
from genpolicy.spec import GenpolicyError
from genpolicy.values.rerank import RerankedPolicy

PICTURE = {"width": 368, "height": 276}


def write_report(root: Path, stages: Sequence[Stage], settings: dict[str, Any]) -> None:
    """Write both files; report.json last."""
    say("Writing the report")
    finished = [
        Finished(stage.name, stage.title, result["command"], result["seconds"])
        for stage in stages
        if (result := stage.result) is not None
    ]
    report = summarise(root, finished, settings)
    write_page(root / "report.html", report, _material(root, report["task"], settings))
    write_json(root / "report.json", report)


def _material(root: Path, task: str, settings: dict[str, Any]) -> Material:
    """Pictures are of the evaluations' own initial states and draws."""
    base, tuned = load(root / "pretrain" / "checkpoints" / "last"), load(root / "finetune")
    value = load_value(root / "value")
    reranked = RerankedPolicy(tuned, value, settings["num_samples"])
    evaluations = {
        name: Evaluation.from_dict(read_json(root / folder / "eval.json"))
        for name, folder in EVALUATED.items()
    }
    before, after = evaluations["pretrained"], evaluations["reranked"]
    many = genpolicy_sim.make(task, before.episodes, history=base.spec.obs_steps)
    log = read_log(root / "deploy" / "flight.mcap")
    film, filmed, why = _film(root, task, (base, reranked), (before, after))
    return Material(
        chunks=first_chunks({"pretrained": base, "finetuned": tuned}, many, before.seed0),
        scores=first_scores(base, value, many, before),
        inference_us=np.asarray(log.chunks["compute_us"]),
        lateness_us=np.asarray(log.ticks["lateness_us"]),
        tick_hz=read_json(root / "deploy" / "deploy.json")["tick_hz"],
        film=film,
        filmed=filmed,
        why_no_film=why,
    )


def _film(
    root: Path, task: str, policies: tuple[Any, Any], evaluations: tuple[Evaluation, Evaluation]
) -> tuple[Path | None, list[int], str]:
    """The film, its seeds, and in place of a film the reason why there is none."""
    try:
        backend()
    except GenpolicyError as error:
        return None, [], f"No video: {error}. Then delete report.html and run the demo again."
    env = genpolicy_sim.make(task, 1, history=policies[0].spec.obs_steps)
    path = root / "before_after.mp4"
    seeds = film_rescues(*policies, evaluations, env, partial(render, env, **PICTURE), path)
    if not seeds:
        return None, [], "No video: there is no initial state that only the second policy solves."
    return path, seeds, ""
