"""Every kind of policy through the command line: pretrain, resume, info, export."""

import json

import pytest
from genpolicy_deploy.controller import Controller

from genpolicy.runs import checkpoint

FAST = ["num_threads=1", "wandb.mode=disabled", "algo.batch_size=16"]


@pytest.mark.parametrize(
    ("preset", "name", "changes"),
    [
        ("flow_mlp", "flow", ["policy.sample_steps=2", "policy.solver=heun"]),
        ("gaussian_mlp", "gaussian", ["policy.std=independent"]),
    ],
)
def test_pretrain_to_controller(cli, toy_data, preset, name, changes):
    small = [f"policy={preset}", "policy.hidden=[16,16,16]", *changes]
    data = ["task=null", f"data.path={toy_data}", *FAST]
    code, _, errors = cli("pretrain", *data, *small, "iterations=2", "run_dir=base")
    assert code == 0, errors
    code, _, errors = cli("pretrain", "resume=base", "iterations=4")
    assert code == 0, errors
    stored = checkpoint.load("base")
    assert stored.step == 4 and stored.config["policy"]["name"] == name
    code, out, _ = cli("info", "base")
    assert code == 0 and f'"name": "{name}"' in out
    code, _, errors = cli("export", "checkpoint=base", "out=controller.onnx")
    assert code == 0, errors
    contract = Controller("controller.onnx").contract
    assert contract.sampler["name"] == name
    assert json.loads(contract.to_json())["noise"] == {"noise": [1, "N", 4, 2]}


@pytest.mark.parametrize("bad", ["policy.sample_steps=0", "policy.solver=rk4", "policy.squash=x"])
def test_impossible_flows_are_refused_in_one_sentence(cli, toy_data, bad):
    code, _, errors = cli(
        "pretrain", "task=null", f"data.path={toy_data}", "policy=flow_mlp", bad, *FAST
    )
    assert code == 2
    assert bad.removeprefix("policy.").split("=")[0] in errors and "Traceback" not in errors
