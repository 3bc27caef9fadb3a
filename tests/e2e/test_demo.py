"""The whole demo with tiny settings: every stage, the real-time robot included, and the report."""

import pytest
from genpolicy_deploy.graph import Graph

from genpolicy.cli import main
from genpolicy.commands.demo import TASK
from genpolicy.runs.files import read_json

pytestmark = pytest.mark.timeout(900)  # a robot in real time, whatever else the machine does

STAGES = {"pretrained", "reference", "pretrained_reranked", "finetuned", "reranked", "deployed"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "demo"
    assert main(["demo", "experiment=demo_fast", f"run_dir={root}", "num_threads=1"]) == 0
    return root


def test_it_leaves_report_controller_and_page(demo):
    report = read_json(demo / "report.json")
    assert report["task"] == TASK
    assert {stage["name"] for stage in report["stages"]} == STAGES
    assert all(stage["seed0"] == 1000 for stage in report["stages"])
    assert report["training"]["env_steps"] > 0
    assert report["deploy"]["ticks"] > 0 and report["deploy"]["control_hz"] == 20.0
    assert "$" not in (demo / "report.html").read_text().split("</style>")[1].split("<pre>")[0]


def test_the_controller_does_what_the_checkpoints_do(demo):
    exported = read_json(demo / "report.json")["export"]
    assert exported["same_outcome"] == exported["episodes"] == 6
    by_onnx, by_torch = (
        read_json(demo / f"eval_{name}" / "eval.json") for name in ("onnx", "reranked")
    )
    assert by_onnx["lengths"] == by_torch["lengths"]


def test_the_contract_quotes_the_evaluation_of_what_it_executes(demo):
    contract = Graph(demo / "controller.onnx").contract
    stages = {s["name"]: s for s in read_json(demo / "report.json")["stages"]}
    quoted = {"name": "reranked", **contract.evaluation}
    assert quoted == stages["reranked"]
    assert contract.num_samples == 3


def test_the_deployed_episode_is_the_first_of_the_evaluation(demo):
    deployed = read_json(demo / "deploy" / "deploy.json")
    assert [e["seed"] for e in deployed["episodes"]] == [1000]


def test_a_finished_demo_says_where_its_report_is(demo, capsys):
    before = (demo / "report.json").stat().st_mtime_ns
    assert main(["demo", "experiment=demo_fast", f"run_dir={demo}", "num_threads=1"]) == 0
    assert "report.html" in capsys.readouterr().err
    assert (demo / "report.json").stat().st_mtime_ns == before
