"""Every shipped experiment, task, method and policy runs for two iterations, tiny."""

from itertools import cycle

import genpolicy_sim
import numpy as np
import pytest
from toy_demonstrations import make_episode

from genpolicy.cli import main
from genpolicy.commands.compose import compose, resolve
from genpolicy.data.robomimic_writer import RobomimicWriter
from genpolicy.data_files import data_path
from genpolicy.finetune import ALGORITHMS
from genpolicy.runs.logger import read_csv

CONFIGS = data_path("configs")
NEEDS = {"gym": ["task.options.id=Pendulum-v1"]}  # what a task's YAML leaves to the user
STEPS = "task.options.max_episode_steps=6"
TINY = ["num_envs=2", "episodes=2", "iterations=2", "num_threads=1", "wandb.mode=disabled"]
FINETUNE = [*TINY, "eval_every=2", "eval_first=false", "algo.rollout_steps=2"]
FINETUNE += ["algo.batch_size=4", "algo.critic_hidden=[8]"]
OFF_POLICY = ["algo.updates=1", "algo.learning_starts=4"]  # what others call epochs
PASSES = dict.fromkeys(("expo", "gorl_sac", "idql", "rlpd"), OFF_POLICY)
SMALL = "policy.hidden=[8,8,8]"


def names(group):
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def schema(group, name):
    """The component that a YAML configures; several may be of one."""
    return (CONFIGS / group / f"{name}.yaml").read_text().split("- schema_")[1].split()[0]


def combinations():
    """(algo, policy) by their YAMLs, each method with all policies that it trains."""
    return [
        (algo, policy)
        for algo in names("algo")
        for policy in names("policy")
        if (method := schema("algo", algo)) in ALGORITHMS
        and schema("policy", policy) in ALGORITHMS[method][0].policies
    ]


def pairs():
    """As few runs as hold every task and every combination of method and policy."""
    tasks, methods = [t for t in names("task") if t != "none"], combinations()
    count = max(len(tasks), len(methods))
    return list(zip(cycle(tasks), cycle(methods), range(count), strict=False))


def runs(verb, arguments):
    assert main([verb, "run_dir=run", *arguments]) == 0
    rows = read_csv("run/metrics.csv")
    assert rows[-1]["step/update"] == 2 and np.isfinite(rows[-1]["step/env"])
    return rows


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("task", "method", "_"), pairs(), ids=str)
def test_every_task_and_every_method_with_its_policies(task, method, _):
    algo, policy = method
    options = [f"task={task}", f"algo={algo}", f"policy={policy}", STEPS, SMALL]
    options += PASSES.get(algo, ["algo.epochs=1"])
    rows = runs("finetune", [*options, *NEEDS.get(task, []), *FINETUNE])
    assert rows[-1]["eval/episodes"] == 2
    assert rows[-1]["eval/return_lo"] <= rows[-1]["eval/return_mean"] <= rows[-1]["eval/return_hi"]


def header(name):
    lines = (CONFIGS / "experiment" / f"{name}.yaml").read_text().splitlines()
    return [line for line in lines if line.startswith("# ") and "@package" not in line]


@pytest.mark.parametrize("name", names("experiment"))
def test_experiments_say_their_command_and_what_it_gives(name):
    command, expected = header(name)[:2]
    assert command.startswith("# genpolicy ") and f"experiment={name}" in command.split()
    assert expected.startswith("# Expected: ") and "TBD" not in expected


def tiny_data(task, seed=0):
    """Random numbers in the shape of a task's episodes: enough to start every kind of training."""
    spec = genpolicy_sim.make(task["name"], 1, **task["options"]).spec
    rng = np.random.default_rng(seed)
    with RobomimicWriter("demos.hdf5", {"env_name": "Tiny", "type": 2}, spec) as writer:
        for _ in range(3):
            writer.add(make_episode(spec, 8, rng))
    return "data.path=demos.hdf5"


@pytest.mark.parametrize("name", [n for n in names("experiment") if n != "demo_fast"])
def test_every_experiment_runs(name):
    """With the command in its first line; the demo is run in tests/e2e."""
    _, _, verb, *given = header(name)[0].split()
    config = resolve(compose(verb, given))
    task = config["task"]
    task["options"]["max_episode_steps"] = 6
    policy = [f"policy={config['policy']['name']}_mlp", SMALL]
    if any(g.startswith(("init=", "data.path=", "checkpoint=")) for g in given):
        data = tiny_data(task)
        options = [f"task={task['name']}", "algo.batch_size=4", STEPS, *TINY, *policy]
        if any(g.startswith(("init=", "checkpoint=")) for g in given):
            assert main(["pretrain", "run_dir=base", data, *options]) == 0
        replaced = {"init": "init=base", "checkpoint": "checkpoint=base", "data.path": data}
        given = [replaced.get(g.split("=")[0], g) for g in given]
    passes = PASSES.get(config["algo"]["name"], ["algo.epochs=1"])
    tiny = [*FINETUNE, *passes] if verb == "finetune" else [*TINY, "algo.batch_size=4"]
    runs(verb, [*given, STEPS, *tiny, *([] if "init=base" in given else [SMALL])])
