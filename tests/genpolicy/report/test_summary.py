"""report.json: the keys of DESIGN.md, and numbers that follow from the stages' files."""

import numpy as np
import pytest
from invented_demo import CURVE, DEPLOY, EPISODES, RATES, make_evaluation, write_imitation

from genpolicy.evaluate.statistics import mcnemar, wilson
from genpolicy.report.summary import imitation, summarise
from genpolicy.runs.files import read_json, write_json

STAGE = {"name", "success_rate", "success_lo", "success_hi", "episodes", "seed0"}


def test_the_keys_are_those_of_the_design(report):
    assert {"task", "stages", "training", "deploy", "versions", "comparisons"} <= set(report)
    assert report["task"] == "lift"
    names = [stage["name"] for stage in report["stages"]]
    assert len(set(names)) == len(names)
    assert set(names) == {*RATES, "deployed"}
    assert all(set(stage) == STAGE for stage in report["stages"])
    assert {"env_steps", "wall_s", "env_steps_per_s"} <= set(report["training"])
    assert report["deploy"] == DEPLOY
    assert {"genpolicy", "torch", "mujoco", "onnxruntime"} <= set(report["versions"])


def test_it_survives_json(report, tmp_path):
    write_json(tmp_path / "report.json", report)
    assert read_json(tmp_path / "report.json") == report


def test_stages_have_wilson_intervals_from_the_same_initial_states(report):
    for stage in report["stages"]:
        count = round(stage["success_rate"] * stage["episodes"])
        assert (stage["success_lo"], stage["success_hi"]) == wilson(count, stage["episodes"])
        assert stage["seed0"] == 1000
        assert stage["episodes"] == (20 if stage["name"] == "deployed" else EPISODES)


def test_comparisons_are_paired_and_exact(report):
    found = {(c["first"], c["second"]): c for c in report["comparisons"]}
    assert set(found) == {
        ("pretrained", "finetuned"),
        ("pretrained", "pretrained_reranked"),
        ("finetuned", "reranked"),
    }
    for (first, second), test in found.items():
        a, b = (make_evaluation(RATES[name]).success for name in (first, second))
        assert (test["gained"], test["lost"]) == ((b & ~a).sum(), (a & ~b).sum())
        assert test["p_value"] == mcnemar(test["gained"], test["lost"])
        assert test["difference"] == pytest.approx(RATES[second] - RATES[first], abs=0.005)
    assert found["pretrained", "finetuned"]["p_value"] < 1e-6


def test_training_tells_cost_and_curve(report):
    training = report["training"]
    assert (training["env_steps"], training["wall_s"]) == (8000, 100.0)
    assert training["env_steps_per_s"] == 80.0
    assert training["best"] == {"env_steps": 8000, "wall_s": 100.0}
    assert [point["success_rate"] for point in training["curve"]] == [0.45, 0.8, 0.97]
    assert training["rollout"][0] == [4000, 50.0, pytest.approx(0.7)]
    assert training["seed0"] == 500_000


def test_a_flat_second_half_is_seen(report):
    base = report["imitation"]["pretrain"]
    assert [point["iteration"] for point in base["curve"]] == [100, 200, 300, 400, 500]
    rates = [point["success_rate"] for point in base["curve"]]
    assert rates == pytest.approx(CURVE, abs=0.005)
    assert base["half_iteration"] == 200
    assert not base["flat"]  # 30 % at half of the steps, 45 % at the end


@pytest.mark.parametrize(
    ("curve", "flat"),
    [
        ((0.1, 0.45, 0.44, 0.45), True),
        ((0.1, 0.5, 0.4, 0.3), True),  # falling is not rising
        ((0.1, 0.2, 0.4, 0.6), False),
        ((0.45,), False),  # one point is no curve
    ],
)
def test_flatness(tmp_path, curve, flat):
    write_imitation(tmp_path, curve)
    assert imitation(tmp_path)["flat"] is flat


def test_export_counts_equal_outcomes(demo_root, report):
    assert report["export"]["same_outcome"] == EPISODES
    other = make_evaluation(RATES["reranked"])
    other.success[:7] = ~other.success[:7]
    write_json(demo_root / "eval_onnx" / "eval.json", other.to_dict())
    assert summarise(demo_root, [], {})["export"]["same_outcome"] == EPISODES - 7
    assert np.isfinite(report["wall_s"])
