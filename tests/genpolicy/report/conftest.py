"""A demo's folder as its stages leave it, with invented results."""

import numpy as np
import pytest
from invented_demo import (
    CURVE,
    DEPLOY,
    EPISODES,
    RATES,
    SETTINGS,
    make_evaluation,
    write_evaluation,
    write_finetuning,
    write_imitation,
)

from genpolicy.report.page import Material
from genpolicy.report.summary import Finished, summarise
from genpolicy.runs.files import write_json


@pytest.fixture
def demo_root(tmp_path):
    for name, rate in RATES.items():
        write_evaluation(tmp_path / f"eval_{name}" / "eval.json", rate)
    write_evaluation(tmp_path / "eval_onnx" / "eval.json", RATES["reranked"])
    write_imitation(tmp_path / "pretrain", CURVE)
    write_imitation(tmp_path / "reference", (0.5, 0.9, 0.93, 0.93, 0.93))
    write_finetuning(tmp_path / "finetune")
    (tmp_path / "deploy").mkdir()
    stage = make_evaluation(0.95, episodes=20).to_dict()
    result = {"task": "lift", "stage": {"name": "deployed", **stage}, "deploy": DEPLOY}
    write_json(tmp_path / "deploy" / "deploy.json", result | {"tick_hz": 500.0})
    (tmp_path / "controller.onnx").write_bytes(b"0" * 2_500_000)
    return tmp_path


@pytest.fixture
def report(demo_root):
    finished = [
        Finished("pretrain", "imitation of <6> demonstrations", "genpolicy pretrain a=b", 60.0),
        Finished("finetune", "DPPO", "genpolicy finetune c=d", 240.0),
    ]
    return summarise(demo_root, finished, SETTINGS)


@pytest.fixture
def material():
    rng = np.random.default_rng(0)
    paths = rng.normal(size=(64, 5, 3)).cumsum(1)
    scores = rng.normal(size=EPISODES)
    return Material(
        chunks={"seed": 1003, "paths": {"pretrained": paths, "finetuned": paths + 1}},
        scores={"scores": scores, "success": scores + rng.normal(size=EPISODES) > 0, "auc": 0.76},
        inference_us=rng.lognormal(7, 0.3, 500),
        lateness_us=rng.lognormal(4, 0.5, 5000),
        tick_hz=500.0,
        film=None,
        filmed=[],
        why_no_film="No video: apt-get install libosmesa6.",
    )
