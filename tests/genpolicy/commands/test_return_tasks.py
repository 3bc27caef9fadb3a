"""Tasks that are judged by their return, through the commands: RL, collection, imitation, eval."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from genpolicy_deploy.controller import Controller

from genpolicy.commands import finetune
from genpolicy.data.hdf5 import read_demonstrations
from genpolicy.runs import checkpoint

FAST = ["num_threads=1", "num_envs=2", "episodes=2"]
TINY = ["iterations=2", "wandb.mode=disabled", "policy.hidden=[8,8,8]", "algo.batch_size=4"]
RL = [*TINY, "algo.rollout_steps=2", "algo.epochs=1", "algo.critic_hidden=[8]", "eval_every=1"]
PPO = ["algo=ppo", "policy=gaussian_small", *RL]
TASKS = {
    "hopper": ["task=hopper", "task.options.max_episode_steps=12"],
    "gym": ["task=gym", "task.options.id=Pendulum-v1", "task.options.max_episode_steps=12"],
}


@pytest.mark.parametrize("name", TASKS)
def test_from_scratch_to_demonstrations_and_back(name, cli):
    task = [*TASKS[name], *FAST]
    assert cli("finetune", *task, *PPO, "run_dir=run")[0] == 0
    code, _, said = cli("collect", *task, "checkpoint=run", "out=medium.hdf5")
    assert code == 0 and "2 episodes of 2 attempts, mean return" in " ".join(said.split())
    demos = read_demonstrations("medium.hdf5")
    assert demos.num_episodes == 2 and demos.task.score == "return"
    with h5py.File("medium.hdf5") as file:
        assert json.loads(file["data"].attrs["env_args"])["type"] == 2
    imitate = ["data.path=medium.hdf5", "policy=flow_small", *TINY, "run_dir=base"]
    assert cli("pretrain", *task, *imitate)[0] == 0
    code, _, said = cli("eval", "checkpoint=base", *FAST, "run_dir=eval", "videos=0")
    assert code == 0 and "base: return " in said
    report = json.loads(Path("eval/eval.json").read_text())
    assert report["score"] == "return"
    assert report["return_lo"] <= report["return_mean"] <= report["return_hi"]
    assert {"success_rate", "success_lo", "success_hi"} <= report.keys()


def test_a_controller_says_the_return_it_was_measured_by(cli):
    assert cli("finetune", *TASKS["hopper"], *FAST, *PPO, "run_dir=run")[0] == 0
    measured = checkpoint.load("run").evaluation
    assert measured is not None
    line = f"return {measured['return_mean']:.4g} [{measured['return_lo']:.4g}, "
    assert line in cli("info", "run")[1]
    assert cli("export", "checkpoint=run", "out=controller.onnx")[0] == 0
    quoted = Controller("controller.onnx").contract.evaluation
    assert quoted is not None and quoted["score"] == "return"
    assert quoted["return_hi"] == measured["return_hi"]
    assert line in cli("info", "controller.onnx")[1]


def test_an_exploring_policy_makes_other_data(cli):
    task = [*TASKS["hopper"], *FAST]
    assert cli("finetune", *task, *PPO, "run_dir=run")[0] == 0
    for out, explore in (("mean.hdf5", "false"), ("spread.hdf5", "true")):
        assert cli("collect", *task, "checkpoint=run", f"out={out}", f"explore={explore}")[0] == 0
    mean, spread = (read_demonstrations(name).actions for name in ("mean.hdf5", "spread.hdf5"))
    roughness = [np.abs(np.diff(actions[:10], axis=0)).mean() for actions in (mean, spread)]
    assert roughness[1] > 1.2 * roughness[0]


def test_a_resumed_run_in_other_peoples_environments_starts_new_episodes(cli):
    task = [*TASKS["gym"], *FAST]
    assert cli("finetune", *task, *PPO, "run_dir=run")[0] == 0
    assert cli("finetune", "resume=run", "iterations=4")[0] == 0


def test_films_need_joint_positions(cli):
    task = [*TASKS["gym"], *FAST]
    assert cli("finetune", *task, *PPO, "run_dir=run")[0] == 0
    code, _, said = cli("eval", "checkpoint=run", *FAST, "run_dir=eval", "videos=1")
    assert code == 0 and "No videos: task 'Pendulum-v1' tells no joint positions" in " ".join(
        said.split()
    )


def test_minari_data_train_in_the_simulated_task(cli, tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File("main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        group["observations"], group["actions"] = (
            rng.normal(size=(9, 11)),
            rng.uniform(-1, 1, (8, 3)),
        )
        group["rewards"], group["terminations"] = np.ones(8), np.zeros(8, bool)
        group["truncations"] = np.arange(8) == 7
    imitate = ["data.path=main_data.hdf5", *FAST, *TINY, "policy=flow_small", "run_dir=base"]
    assert cli("pretrain", *TASKS["hopper"], *imitate, "eval_every=2")[0] == 0
    code, _, error = cli("pretrain", "task=walker2d", *imitate)
    assert code == 2 and "dataset has observation size 11, task walker2d 17" in error


def test_without_expert_and_checkpoint_nobody_acts(cli, files):
    code, _, error = cli("collect", *TASKS["hopper"], "out=d.hdf5")
    assert code == 2 and "'hopper' has no scripted expert" in error and "checkpoint=" in error
    assert files() == []


def test_from_scratch_only_the_environments_that_learn_stay_open(cli, monkeypatch):
    made = []

    def watched(*arguments):
        made.append(make_env(*arguments))
        monkeypatch.setattr(made[-1], "close", lambda env=made[-1]: closed.append(env))
        return made[-1]

    closed, make_env = [], finetune.make_env
    monkeypatch.setattr(finetune, "make_env", watched)
    assert cli("finetune", *TASKS["hopper"], *FAST, *PPO)[0] == 0
    assert closed == made[:1] and len(made) == 3
