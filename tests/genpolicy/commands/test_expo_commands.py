"""Off-policy methods through the commands: data, interruption, export, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from genpolicy.runs import checkpoint

TASK = ["task=hopper", "task.options.max_episode_steps=12", "num_threads=1", "num_envs=2"]
SMALL = ["episodes=2", "wandb.mode=disabled"]
LEARN = ["algo.learning_starts=2", "algo.batch_size=4", "algo.critic_hidden=[8]", "algo.updates=2"]
METHODS = {
    "expo": ["init=base", "algo.edit_hidden=[8,8,8]", "algo.samples=2", "algo.warmup=2"],
    "idql": ["init=base", "algo.value_hidden=[8,8,8]", "algo.samples=2"],
    "rlpd": ["policy=gaussian_small", "chunk=2", "exec_steps=2"],
}


@pytest.fixture
def recorded(cli):
    """``data.hdf5`` of a policy that knows nothing, and ``base``, which imitates it."""
    ppo = ["finetune", *TASK, *SMALL, "algo=ppo", "policy=gaussian_small", "iterations=1"]
    assert cli(*ppo, "algo.rollout_steps=2", "algo.critic_hidden=[8]", "run_dir=medium")[0] == 0
    collect = ["collect", *TASK, "out=data.hdf5", "episodes=2", "explore=true"]
    assert cli(*collect, "checkpoint=medium")[0] == 0
    imitate = ["pretrain", *TASK, *SMALL, "data.path=data.hdf5", "policy=flow_small", "chunk=2"]
    imitate += ["exec_steps=2", "iterations=2", "algo.batch_size=4", "run_dir=base"]
    assert cli(*imitate)[0] == 0
    return cli


@pytest.mark.parametrize("method", METHODS)
def test_from_data_through_an_interruption_to_a_controller(recorded, method):
    cli = recorded
    run = ["finetune", *TASK, *SMALL, f"algo={method}", "data.path=data.hdf5", *LEARN]
    run += METHODS[method]
    assert cli(*run, "iterations=6", "run_dir=whole")[0] == 0
    assert cli(*run, "iterations=3", "run_dir=broken")[0] == 0
    assert cli("finetune", "resume=broken", "iterations=6")[0] == 0
    ours, theirs = (checkpoint.load(run, prefer="last").weights() for run in ("broken", "whole"))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())

    assert cli("export", "checkpoint=broken", "out=controller.onnx")[0] == 0
    returns = []
    for policy in ("broken", "controller.onnx"):
        where = [f"checkpoint={policy}", f"run_dir=eval_{policy}", "episodes=4", "videos=0"]
        assert cli("eval", *TASK, *where)[0] == 0
        returns.append(json.loads(Path(f"eval_{policy}/eval.json").read_text())["returns"])
    np.testing.assert_allclose(*returns, rtol=1e-3)


def test_what_does_not_fit_is_refused_in_one_sentence(recorded):
    cli = recorded
    for arguments, message in (
        (["algo=dppo", "policy=diffusion_small"], "algo=dppo learns from its own experience only"),
        (["algo=expo", "init=base", "algo.samples=0"], "algo.samples=0 must be at least 1"),
        (["algo=expo", "policy=gaussian_small"], "choose one of algo=ppo, algo=rlpd"),
        (["algo=rlpd", "init=medium"], "policy.squash=tanh"),
        (["algo=expo", "init=base", "task=walker2d"], "made for task 'hopper'"),
    ):
        run = ["finetune", *TASK, *SMALL, "data.path=data.hdf5", "run_dir=bad", *arguments]
        code, _, err = cli(*run)
        assert code == 2 and message in err, (arguments, err)
