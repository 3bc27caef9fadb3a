"""GoRL through the commands: stages that outlive an interruption, and one policy at the end."""

import json
from pathlib import Path

import pytest
import torch
from genpolicy_deploy.controller import Controller

from genpolicy.runs import checkpoint

TASK = ["task=hopper", "task.options.max_episode_steps=12", "num_threads=1", "num_envs=2"]
SMALL = ["policy.hidden=[8,8,8]", "episodes=2", "wandb.mode=disabled"]
STAGES = [
    "algo.stages=[2,1]", "algo.encoder_hidden=[8,8,8]", "algo.refine_episodes=2",
    "algo.refine_steps=3", "algo.refine_batch_size=8",
]  # fmt: skip
METHODS = {
    "gorl": ["algo.rollout_steps=4", "algo.batch_size=4", "algo.critic_hidden=[8]"],
    "gorl_sac": ["algo.learning_starts=2", "algo.batch_size=4", "algo.critic_hidden=[8]"],
}


def weights_and_state(run):
    stored = checkpoint.load(run, prefer="last")
    state, _ = stored.training_state()
    return stored.weights(), state


@pytest.mark.parametrize("method", METHODS)
def test_from_scratch_through_an_interruption_to_a_controller(cli, method):
    run = ["finetune", *TASK, *SMALL, f"algo={method}", "policy=flow_small", *STAGES]
    run += METHODS[method]
    assert cli(*run, "iterations=5", "run_dir=whole")[0] == 0
    assert cli(*run, "iterations=2", "run_dir=broken")[0] == 0  # a stage has just ended
    assert cli("finetune", "resume=broken", "iterations=5")[0] == 0
    ours, state = weights_and_state("broken")
    expected, expected_state = weights_and_state("whole")
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], value) for name, value in expected.items())
    assert state["stages"]["number"] == expected_state["stages"]["number"] == 2

    assert cli("export", "checkpoint=broken", "out=controller.onnx")[0] == 0
    controller = Controller("controller.onnx")
    assert controller.contract.sampler["decoder"]["name"] == "flow"
    assert controller.noise()["noise"].shape == (1, 1, 4, 3)
    for policy in ("broken", "controller.onnx"):
        where = [f"checkpoint={policy}", f"run_dir=eval_{policy}"]
        assert cli("eval", *TASK, *where, "episodes=2", "videos=0")[0] == 0
    by_torch, by_onnx = (
        json.loads(Path(f"eval_{policy}/eval.json").read_text())["returns"]
        for policy in ("broken", "controller.onnx")
    )
    assert by_onnx == pytest.approx(by_torch, rel=1e-3)


def test_a_pretrained_policy_becomes_the_first_decoder(cli):
    collect = ["collect", *TASK, "out=data.hdf5", "episodes=2", "explore=true"]
    ppo = ["finetune", *TASK, *SMALL, "algo=ppo", "policy=gaussian_small", "iterations=1"]
    assert cli(*ppo, "algo.rollout_steps=2", "algo.critic_hidden=[8]", "run_dir=medium")[0] == 0
    assert cli(*collect, "checkpoint=medium")[0] == 0
    imitate = ["pretrain", *TASK, *SMALL, "data.path=data.hdf5", "policy=diffusion_small"]
    assert cli(*imitate, "iterations=2", "algo.batch_size=4", "run_dir=base")[0] == 0
    steer = ["finetune", *TASK, "episodes=2", "wandb.mode=disabled", "algo=gorl", "init=base"]
    steer += ["iterations=1", "algo.encoder_hidden=[8,8,8]", *METHODS["gorl"], "run_dir=steered"]
    assert cli(*steer)[0] == 0
    base, steered = checkpoint.load("base").weights(), checkpoint.load("steered").weights()
    frozen = {name: value for name, value in steered.items() if name.startswith("decoder.")}
    assert frozen.keys() == {f"decoder.{name}" for name in base}
    assert all(torch.equal(frozen[f"decoder.{name}"], value) for name, value in base.items())
