"""A demo that was interrupted goes on with its first open stage, and never mixes two demos."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from genpolicy.cli import main
from genpolicy.commands import stages as module
from genpolicy.commands.compose import compose
from genpolicy.commands.configs import Demo
from genpolicy.commands.demo import plan
from genpolicy.commands.launch import _resumed as resumed
from genpolicy.commands.stages import SPENT, Stage, check, quoted, run_stages
from genpolicy.runs.files import write_json
from genpolicy.spec import GenpolicyError


@pytest.fixture
def launched(monkeypatch):
    """Commands in the order in which they ran; those in ``fails`` raise."""
    calls, fails = [], {}

    def launch(verb, arguments):
        calls.append((verb, list(arguments)))
        if error := fails.get(verb):
            raise error

    monkeypatch.setattr(module, "launch", launch)
    launch.calls, launch.fails = calls, fails
    return launch


def make_stage(root, verb, *arguments, products=()):
    command = ("genpolicy", verb, *arguments)
    return Stage(root / verb, verb, command, lambda: f"{verb} did it", tuple(products))


@pytest.fixture
def three(tmp_path):
    return [make_stage(tmp_path, verb) for verb in ("collect", "pretrain", "eval")]


def test_finished_stages_do_not_run_again(three, launched, capsys):
    run_stages(three)
    assert [verb for verb, _ in launched.calls] == ["collect", "pretrain", "eval"]
    assert [stage.result["summary"] for stage in three] == [
        "collect did it", "pretrain did it", "eval did it"
    ]  # fmt: skip
    run_stages(three)
    assert len(launched.calls) == 3
    assert "done before" in capsys.readouterr().err


def test_the_first_open_stage_is_where_it_goes_on(three, launched):
    launched.fails["pretrain"] = GenpolicyError("the data are gone")
    with pytest.raises(GenpolicyError, match="pretrain: the data are gone"):
        run_stages(three)
    assert [stage.result is not None for stage in three] == [True, False, False]
    launched.fails.clear()
    run_stages(three)
    assert [verb for verb, _ in launched.calls] == ["collect", "pretrain", "pretrain", "eval"]


def test_what_a_broken_stage_left_is_removed(tmp_path, launched):
    product, neighbour = tmp_path / "controller.onnx", tmp_path / "other.onnx"
    stage = make_stage(tmp_path, "export", products=[product])
    stage.folder.mkdir()
    for path in (stage.folder / "half", product, neighbour):
        path.write_text("half-written")
    run_stages([stage])
    assert not (stage.folder / "half").exists() and not product.exists()
    assert neighbour.exists()
    product.write_text("whole")
    run_stages([stage])
    assert product.exists()


def test_an_interrupted_training_resumes_and_its_seconds_add_up(tmp_path, launched):
    stage = make_stage(tmp_path, "finetune", "init=X")
    launched.fails["finetune"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_stages([stage])
    assert stage.result is None and (stage.folder / SPENT).exists()
    (stage.folder / "checkpoints").mkdir()
    (stage.folder / "checkpoints" / "last").write_text("step_000000010\n")
    write_json(stage.folder / SPENT, {"seconds": 100.0})
    launched.fails.clear()
    run_stages([stage])
    assert launched.calls[-1] == ("finetune", [f"resume={stage.folder}"])
    assert 100 < stage.result["seconds"] < 101
    assert stage.result["command"] == "genpolicy finetune init=X"


def test_a_training_without_a_checkpoint_starts_anew(tmp_path, launched):
    stage = make_stage(tmp_path, "finetune", "init=X")
    (stage.folder / "checkpoints").mkdir(parents=True)
    run_stages([stage])
    assert launched.calls == [("finetune", ["init=X"])]
    assert not (stage.folder / "checkpoints").exists()


def test_a_failed_deployment_is_not_finished(tmp_path):
    command = ("genpolicy-deploy", "inspect", str(tmp_path / "missing.onnx"))
    stage = Stage(tmp_path / "deploy", "deploy", command, str)
    with pytest.raises(GenpolicyError, match="exit code 2"):
        run_stages([stage])
    assert stage.result is None


def test_all_commands_compose_before_the_first_one_runs(tmp_path, launched):
    stages = [make_stage(tmp_path, "collect", "out=X"), make_stage(tmp_path, "eval", "epizodes=3")]
    with pytest.raises(GenpolicyError, match="epizodes is not a key of genpolicy eval"):
        check(stages)
    assert launched.calls == []


def test_the_plan_composes_and_keeps_the_initial_states_apart(tmp_path):
    stages = plan(Demo(run_dir=str(tmp_path)))
    check(stages)
    composed = {
        s.name: compose(s.command[1], list(s.command[2:])) for s in stages if s.name != "deploy"
    }
    evaluations = [c for name, c in composed.items() if name.startswith("eval_")]
    assert {(c.seed0, c.episodes) for c in evaluations} == {(1000, 300)}
    for name in ("pretrain", "reference", "finetune"):  # what chooses a checkpoint
        chosen_on = range(composed[name].seed0, composed[name].seed0 + composed[name].episodes)
        assert not set(chosen_on) & set(range(1000, 1300))
    assert composed["rollouts"].seed != composed["demonstrations"].seed
    names = [Path(stage.folder).name for stage in stages]
    assert names.index("eval_reranked") < names.index("export") < names.index("deploy")


def test_another_demo_is_not_continued(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("genpolicy.commands.demo.run_stages", lambda stages: None)
    monkeypatch.setattr("genpolicy.commands.demo.write_report", lambda *arguments: None)
    folder = f"run_dir={tmp_path / 'demo'}"
    assert main(["demo", folder]) == 0
    assert main(["demo", folder]) == 0
    assert main(["demo", folder, "seed=1"]) == 2
    assert "holds a demo with another seed" in capsys.readouterr().err


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("precious")
    assert main(["demo", f"run_dir={tmp_path}"]) == 2
    assert "holds something that is no demo" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="/$")))
def test_any_path_survives_hydra(name):
    path = Path("/tmp") / name
    parsed = OverridesParser.create().parse_override(f"out={quoted(path)}")
    assert parsed.value() == str(path)


def test_a_run_in_a_folder_with_spaces_can_be_resumed(tmp_path):
    run = tmp_path / "my runs, all" / "finetune"
    (run / "checkpoints" / "step_000000001").mkdir(parents=True)
    (run / "checkpoints" / "last").write_text("step_000000001\n")
    (run / "overrides.yaml").write_text("[init=X, iterations=7]\n")
    resume = f"resume={quoted(run)}"
    assert resumed([resume]) == ["init=X", "iterations=7", resume]
