"""Every configured command on Lift, in miniature: collect to export, one after the other."""

import json

import pytest
from genpolicy_sim import rendering

from genpolicy.cli import main
from genpolicy.data.hdf5 import read_demonstrations
from genpolicy.runs import checkpoint
from genpolicy.runs.logger import read_csv
from genpolicy.spec import GenpolicyError

FAST = ["num_threads=1", "num_envs=4"]
SHORT = ["task=lift", "task.options.max_episode_steps=16"]
QUIET = [*FAST, "wandb.mode=disabled"]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A folder in which collect, pretrain, finetune, value and export have run."""
    folder = tmp_path_factory.mktemp("lift")
    context = pytest.MonkeyPatch()
    context.chdir(folder)
    small = ["policy.hidden=[32,32,32]", "policy.train_steps=10", "policy.sample_steps=5"]
    commands = [
        ["collect", "out=demos.hdf5", "episodes=4", *FAST],
        ["pretrain", "data.path=demos.hdf5", "iterations=30", "episodes=4", "eval_every=30",
         "run_dir=base", *small, *SHORT, *QUIET],
        ["collect", "out=roll.hdf5", "episodes=4", "checkpoint=base", *SHORT, *FAST],
        ["finetune", "init=base", "iterations=1", "episodes=4", "run_dir=tuned",
         "algo.rollout_steps=3", "algo.epochs=1", *SHORT, *QUIET],
        ["value", "checkpoint=base", "data.path=[demos.hdf5,roll.hdf5]", "iterations=3",
         "run_dir=value", "algo.value.hidden=[16]", "algo.batch_size=8", *QUIET],
        ["export", "checkpoint=tuned", "value=value", "out=controller.onnx"],
    ]  # fmt: skip
    for command in commands:
        assert main(command) == 0, command
    yield folder
    context.undo()


def test_expert_data_is_kept_only_where_it_succeeded(chain):
    demos = read_demonstrations(chain / "demos.hdf5")
    assert demos.num_episodes == 4
    assert demos.task.task == "lift"
    assert demos.dones[demos.starts + demos.lengths - 1].all()


def test_policy_data_is_kept_whatever_happened(chain):
    assert read_demonstrations(chain / "roll.hdf5").num_episodes == 4


def test_training_runs_evaluated_themselves(chain):
    for run in ("base", "tuned"):
        stored = checkpoint.load(chain / run)
        assert stored.evaluation is not None
        assert stored.evaluation["episodes"] == 4
        assert stored.evaluation["seed0"] == 1000
    rows = read_csv(chain / "tuned" / "metrics.csv")
    assert rows[0]["step/update"] == 0  # the base, before tuning
    assert rows[1]["policy/ratio_first"] == pytest.approx(1.0, abs=1e-6)
    assert checkpoint.load(chain / "tuned").config["policy"]["tuned_steps"] > 0


def test_eval_of_checkpoint_and_controller_agree(chain):
    results = []
    for name, extra in (("tuned", []), ("controller.onnx", ["num_samples=1"])):
        run_dir = f"eval_{len(results)}"
        arguments = [f"checkpoint={name}", "episodes=6", "videos=0", f"run_dir={run_dir}"]
        assert main(["eval", *arguments, *extra, *SHORT, *FAST]) == 0
        results.append(json.loads((chain / run_dir / "eval.json").read_text()))
    ours, theirs = results
    assert ours["lengths"] == theirs["lengths"]
    assert ours["success"] == theirs["success"]
    assert {"task", "success_rate", "success_lo", "success_hi", "episodes", "seed0"} <= set(ours)


def test_eval_re_ranks_with_a_value_function(chain):
    arguments = ["checkpoint=base", "value=value", "num_samples=3", "episodes=2", "videos=0"]
    assert main(["eval", *arguments, "run_dir=eval_reranked", *FAST]) == 0
    assert json.loads((chain / "eval_reranked" / "eval.json").read_text())["value"] == "value"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["eval", "checkpoint=tuned", "num_samples=3"], "needs a value function"),
        (["eval", "checkpoint=controller.onnx", "value=value"], "brings its own scores"),
        (["eval", "checkpoint=value"], "holds a 'q_ensemble', which is no policy"),
        (["eval", "checkpoint=base", "value=base"], "which is no value function"),
        (["export", "checkpoint=base", "out=x.onnx", "num_samples=4"], "needs a value function"),
        (["eval", "checkpoint=base", "episodes=0"], "episodes=0"),
        (["finetune", "init=controller.onnx"], "an exported controller cannot be trained"),
        (
            ["finetune", "init=base", "algo=fpo"],
            "this is a diffusion policy: choose one of algo=dppo",
        ),
    ],
)
def test_combinations_that_make_no_sense(chain, capsys, arguments, named):
    fast = FAST if arguments[0] != "export" else []
    assert main([*arguments, *fast]) == 2
    assert named in capsys.readouterr().err


def test_info_of_everything(chain, capsys):
    for name in ("base", "value", "demos.hdf5", "controller.onnx"):
        assert main(["info", name]) == 0
        assert "lift" in capsys.readouterr().out


def evaluate_with_films(run_dir):
    arguments = ["checkpoint=base", "episodes=2", "videos=1", f"run_dir={run_dir}", *SHORT]
    return main(["eval", *arguments, *FAST])


def test_eval_films_the_first_failure_and_success(chain):
    try:
        rendering.backend()
    except GenpolicyError as error:
        pytest.skip(str(error))
    assert evaluate_with_films("eval_filmed") == 0
    episodes = json.loads((chain / "eval_filmed" / "eval.json").read_text())["success"]
    films = list((chain / "eval_filmed" / "videos").iterdir())
    assert len(films) == len(set(episodes))
    assert all(film.stat().st_size > 1000 for film in films)


def test_without_opengl_eval_says_what_to_install_and_goes_on(chain, capsys, monkeypatch):
    def nothing_works():
        raise GenpolicyError("no OpenGL: apt-get install libegl1")

    monkeypatch.setattr(rendering, "backend", nothing_works)
    assert evaluate_with_films("eval_unfilmed") == 0
    assert "No videos: no OpenGL: apt-get install libegl1" in capsys.readouterr().err
    assert (chain / "eval_unfilmed" / "eval.json").exists()
    assert not (chain / "eval_unfilmed" / "videos").exists()
