"""The command line: help, mistakes in one sentence, nothing overwritten, sweeps."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from genpolicy.cli import CONFIGURED, PLAIN, main
from genpolicy.commands.common import one_process
from genpolicy.commands.compose import for_hydra
from genpolicy.runs import checkpoint, distributed
from genpolicy.spec import GenpolicyError


def test_help_names_every_verb(cli):
    for arguments in ([], ["--help"], ["help"]):
        code, out, _ = cli(*arguments)
        assert code == 0
        assert all(f"  {verb} " in out for verb in [*CONFIGURED, *PLAIN])


@pytest.mark.parametrize("verb", ["collect", "pretrain", "finetune", "value", "eval", "export"])
def test_verb_help_has_examples_and_documents_every_key(cli, verb):
    code, out, _ = cli(verb, "--help")
    assert code == 0
    assert f"genpolicy {verb} " in out.split("Examples:")[1]
    for line in out.split("Keys:\n")[1].split("\n\n")[0].splitlines():
        assert len(line.split()) > 2, f"undocumented: {line}"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["pretrian"], "'pretrian' is not a verb: choose one of collect, pretrain"),
        (["pretrain", "iteratoins=3"], "iteratoins is not a key .* did you mean iterations"),
        (["pretrain", "algo.lrr=3"], r"algo\.lrr is not a key .* did you mean algo\.lr"),
        (["pretrain", "+extra=3", "data.path=x"], "extra is not a key"),
        (["finetune", "algo=gorl", "algo.stages=5"], r"algo\.stages takes a list"),
        (["finetune", "algo=gorl", "algo.stages=null"], r"algo\.stages: .* not Optional"),
        (["pretrain", "zzz=3"], "zzz is not a key of genpolicy pretrain: see .* --help"),
        (["pretrain", "task=lfit"], "task=lfit does not exist: choose one of .*lift"),
        (["finetune", "algo=ddpo"], "algo=ddpo does not exist: choose one of .*dppo"),
        (["pretrain", "iterations=many"], "iterations: Value 'many'"),
        (["pretrain", "policy.hidden=[1,a]"], r"policy\.hidden\[1\]: Value 'a'"),
        (["pretrain", "data.path=[x"], "genpolicy pretrain: "),
        (["pretrain", "justaword"], "justaword"),
        (["pretrain"], r"data\.path must be given"),
        (["export", "out=x.onnx"], "checkpoint must be given"),
        (["pretrain", "data.path=nothing.hdf5"], r"nothing\.hdf5: no such file"),
        (["pretrain", "data.path=x", "device=tpu"], "device=tpu is unknown"),
        (["pretrain", "--fast"], "--fast is not an option"),
        (["finetune", "task=null"], "task=null: fine-tuning needs a simulated task"),
        (["collect", "task=null", "out=x.hdf5"], "task=null: collecting needs"),
        (["collect", "out=x.hdf5", "expert.nois=1"], "no option 'nois': it has noise, bimodal"),
        (["finetune", "init=nowhere"], "checkpoint nowhere: no such file or folder"),
        (["eval", "checkpoint=nowhere.onnx"], r"nowhere\.onnx: no such file"),
        (["pretrain", "resume=nowhere"], "checkpoint nowhere: no such file"),
        (["pretrain", "resume=nowhere", "run_dir=x"], "run_dir cannot be given with resume"),
        (["pretrain", "-m", "seed=0,1", "run_dir=x"], "leave out resume and run_dir"),
        (["pretrain", "-m", "sede=0,1"], "sede is not a key .* did you mean seed"),
        (["info"], "info takes one argument"),
        (["info", "nothing.hdf5"], r"nothing\.hdf5: no such file"),
        (["info", "algo=nothing"], "algo=nothing does not exist"),
        (["info", "colour=red"], "choose a group among policy, algo"),
        (["doctor", "now"], "doctor takes no argument"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(cli, files, arguments, named):
    code, out, err = cli(*arguments)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("genpolicy: ")
    with pytest.raises(GenpolicyError, match=named):  # --debug: the exception itself
        main([*arguments, "--debug"])
    assert files() == []


def test_exit_code_of_the_installed_command():
    command = [Path(sys.executable).with_name("genpolicy"), "pretrian"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "'pretrian' is not a verb" in done.stderr


def test_cfg_prints_the_configuration_and_runs_nothing(cli, files):
    code, out, _ = cli("pretrain", "--cfg", "job", "seed=3")
    assert code == 0
    config = yaml.safe_load(out)
    assert config["seed"] == 3
    assert config["policy"]["name"] == "diffusion"
    assert config["data"]["path"] == "???"
    assert files() == []


def test_options_of_the_expert_are_given_like_other_keys(cli):
    code, out, _ = cli("collect", "--cfg", "job", "expert.noise=0.1", "expert.bimodal=false")
    assert code == 0
    assert yaml.safe_load(out)["expert"] == {"noise": 0.1, "bimodal": False}


def test_hydra_gets_what_it_knows_when_composing_and_when_sweeping():
    given = ["expert.noise=0.1,0.2", "task=null", "resume=null", "seed=1"]
    assert for_hydra(given) == ["++expert.noise=0.1,0.2", "task=none", "resume=null", "seed=1"]


def test_run_folder_is_the_documented_one(cli, files, toy_pretrain):
    code, _, err = cli(*toy_pretrain, "iterations=4", "run_dir=run", "log_every=2")
    assert code == 0, err
    assert {name.split("/")[1] for name in files()} == {
        "config.yaml",
        "overrides.yaml",
        "env.json",
        "metrics.csv",
        "checkpoints",
    }
    stored = checkpoint.load("run")
    assert stored.config["policy"]["hidden"] == [16, 16, 16]
    assert stored.config["algo"]["batch_size"] == 16
    assert stored.spec.task.task == "toy"
    code, out, _ = cli("info", "run")
    assert code == 0
    assert "task          toy" in out
    assert "imitation, 4 iterations" in out


def test_default_run_folder_carries_task_algorithm_and_seed(cli, files, toy_pretrain):
    for _ in range(2):  # within one second: two folders all the same
        assert cli(*toy_pretrain, "iterations=1", "seed=5")[0] == 0
    folders = {"/".join(name.split("/")[:4]) for name in files()}
    assert len(folders) == 2
    assert all(name.startswith("runs/toy/imitation/") and "-s5" in name for name in folders)


def test_nothing_is_overwritten(cli, files, toy_pretrain, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "mine.hdf5").write_text("mine")
    for arguments in (
        [*toy_pretrain, "iterations=1", "run_dir=full"],
        [*toy_pretrain, "iterations=1", "run_dir=mine.hdf5"],
        ["collect", "out=mine.hdf5"],
        ["export", "checkpoint=x", "out=mine.hdf5"],
    ):
        code, _, err = cli(*arguments)
        assert code == 2
        assert "exists and nothing is overwritten" in err
    assert files() == ["full/mine.txt", "mine.hdf5"]


def test_sweep_makes_one_run_per_combination(cli, files, toy_pretrain):
    argv = list(sys.argv)
    code, _, err = cli(*toy_pretrain[:1], "-m", *toy_pretrain[1:], "iterations=1", "seed=0,1")
    assert code == 0, err
    configs = [n for n in files() if re.fullmatch(r"runs/toy/imitation/[^/]+/config.yaml", n)]
    seeds = {yaml.safe_load(Path(name).read_text())["seed"] for name in configs}
    assert seeds == {0, 1}
    assert sys.argv == argv


def test_a_checkpoint_of_another_task_is_refused(cli, toy_pretrain):
    assert cli(*toy_pretrain, "iterations=1", "run_dir=run")[0] == 0
    for arguments in (
        ["eval", "checkpoint=run", "task=lift", "num_threads=1", "num_envs=2"],
        ["finetune", "init=run", "num_threads=1", "num_envs=2"],
        [a for a in toy_pretrain if a != "task=null"],
    ):
        code, _, err = cli(*arguments)
        assert code == 2
        assert "made for task 'toy', which differs from 'lift'" in err
    code, _, err = cli("eval", "checkpoint=run", "num_threads=1")
    assert code == 2
    assert "task 'toy' does not exist" in err


def test_damaged_checkpoints_are_refused(cli, toy_pretrain, tmp_path):
    assert cli(*toy_pretrain, "iterations=1", "run_dir=run")[0] == 0
    weights = tmp_path / "run/checkpoints/step_000000001/policy.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 4
    weights.write_bytes(data)
    for arguments in (
        ["eval", "checkpoint=run"],
        ["info", "run"],
        ["export", "checkpoint=run", "out=x.onnx"],
        ["pretrain", "resume=run"],
    ):
        code, _, err = cli(*arguments)
        assert code == 2
        assert "policy.safetensors is damaged" in err
    assert not (tmp_path / "x.onnx").exists()


def test_info_about_data_and_components(cli, toy_data):
    code, out, _ = cli("info", toy_data)
    assert code == 0
    assert "3 episodes, 41 steps" in out
    code, out, _ = cli("info", "algo=dppo")
    assert code == 0
    assert "algo.tuned_steps" in out
    assert cli("info", "policy=diffusion_mlp")[1] == cli("info", "policy=diffusion")[1]


@pytest.mark.parametrize(("name", "pairs"), [("fpo", 8), ("fpo_plus", 16)])
def test_info_shows_the_values_of_the_preset(cli, name, pairs):
    line = next(x for x in cli("info", f"algo={name}")[1].splitlines() if "algo.pairs" in x)
    assert line.endswith(f"[{pairs}]")


def test_doctor_reports_every_check(cli):
    code, out, _ = cli("doctor")
    assert code in (0, 1)
    for name in ("python", "packages", "cores", "bf16", "rendering", "real time", "disk", "wandb"):
        assert f" {name} " in out


def test_methods_that_do_not_average_gradients_refuse_several_processes(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(GenpolicyError, match="genpolicy value runs in one process only"):
        one_process("value")
