"""Checkpoints: complete, verified, pointed at, pruned."""

import json

import numpy as np
import pytest
import torch
from toy_env import SPEC

from genpolicy.runs import checkpoint
from genpolicy.runs.load import load, load_value
from genpolicy.spec import GenpolicyError

CONFIG = {"seed": 0, "algo": {"name": "walk"}, "policy": {"name": "something else"}}


@pytest.fixture
def saved(tmp_path, make_algorithm):
    """Folder of checkpoints, the algorithm, and the one checkpoint that was written."""
    algorithm = make_algorithm()
    algorithm.collect()
    algorithm.update()
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    evaluation = {"success_rate": 0.5, "success": [1, 0]}
    path = checkpoint.save(folder, 120, algorithm, CONFIG, {"iteration": 120}, evaluation)
    return folder, algorithm, path


def test_layout_is_the_documented_one(saved):
    folder, _, path = saved
    assert path.name == "step_000000120"
    files = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
    assert files == {
        "config.yaml",
        "spec.json",
        "policy.safetensors",
        "train/model.safetensors",
        "train/state.pt",
        "eval.json",
        "manifest.json",
    }
    assert (folder / "last").read_text().strip() == "step_000000120"
    assert sorted(p.name for p in folder.iterdir()) == ["last", "step_000000120"]


def test_everything_comes_back(saved, make_algorithm):
    _, algorithm, path = saved
    stored = checkpoint.load(path)
    assert stored.spec == SPEC
    assert stored.config["policy"] == algorithm.policy.config_dict()
    assert stored.evaluation == {"success_rate": 0.5, "success": [1, 0]}
    assert stored.step == 120
    state, counters = stored.training_state()
    assert counters == {"iteration": 120}
    assert state["rng"] == algorithm.rng.bit_generator.state  # 128-bit integers
    other = make_algorithm(seed=1)
    other.load_state_dict(state)
    for one in (algorithm, other):
        one.collect()
        one.update()
    np.testing.assert_array_equal(algorithm.draw, other.draw)
    for a, b in zip(algorithm.policy.parameters(), other.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_loaded_policy_computes_the_same(saved):
    _, algorithm, path = saved
    policy = load(path)
    assert not policy.training
    obs = {"place": torch.rand(3, 1, 1), "start": torch.rand(3, 1, 1)}
    noise = policy.draw_noise(3)
    with torch.inference_mode():
        expected = algorithm.policy.sample(obs, noise=noise)
        assert torch.equal(policy.sample(obs, noise=noise), expected)


def test_a_checkpoint_may_be_named_in_five_ways(saved):
    folder, _, path = saved
    checkpoint.mark_best(folder, path)
    for name in (path, folder / "last", folder / "best", folder, folder.parent):
        assert checkpoint.resolve(name) == path


def test_run_folder_means_best_and_resume_means_last(saved):
    folder, algorithm, first = saved
    checkpoint.mark_best(folder, first)
    second = checkpoint.save(folder, 240, algorithm, CONFIG, {})
    assert checkpoint.resolve(folder.parent) == first
    assert checkpoint.resolve(folder.parent, prefer="last") == second
    (folder / "best").unlink()
    assert checkpoint.resolve(folder.parent) == second


FILES = ["config.yaml", "spec.json", "policy.safetensors", "train/state.pt", "eval.json"]


@pytest.mark.parametrize("name", FILES)
def test_flipped_bytes_are_found(saved, name):
    _, _, path = saved
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(GenpolicyError, match=f"{name} is damaged"):
        checkpoint.load(path)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_missing_files_are_found(saved, name):
    _, _, path = saved
    (path / name).unlink()
    with pytest.raises(GenpolicyError, match=f"half-written .*{name}"):
        checkpoint.load(path)


def test_a_damaged_manifest_is_found(saved):
    _, _, path = saved
    (path / "manifest.json").write_text("{")
    with pytest.raises(GenpolicyError, match=r"manifest\.json: not valid JSON"):
        checkpoint.load(path)
    (path / "manifest.json").write_text("[]")
    with pytest.raises(GenpolicyError, match=r"manifest\.json: malformed"):
        checkpoint.load(path)


def test_a_newer_format_is_refused(saved):
    _, _, path = saved
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(GenpolicyError, match="format 2 is newer"):
        checkpoint.load(path)


def test_a_crash_while_writing_leaves_the_old_state(saved, monkeypatch):
    folder, algorithm, path = saved

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "_write_manifest", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(folder, 240, algorithm, CONFIG, {})
    assert sorted(p.name for p in folder.iterdir()) == ["last", path.name]
    assert checkpoint.load(folder.parent).step == 120


def test_pruning_keeps_the_newest_and_the_best(saved):
    folder, algorithm, best = saved
    checkpoint.mark_best(folder, best)
    for step in (240, 360, 480):
        checkpoint.save(folder, step, algorithm, CONFIG, {})
    checkpoint.prune(folder, keep=2)
    assert [p.name[-3:] for p in checkpoint.step_folders(folder)] == ["120", "360", "480"]


def test_the_shippable_part_stands_alone(saved, tmp_path):
    _, _, path = saved
    ship = tmp_path / "shipped"
    ship.mkdir()
    for name in ("config.yaml", "spec.json", "policy.safetensors", "eval.json", "manifest.json"):
        (ship / name).write_bytes((path / name).read_bytes())
    assert load(ship).spec == SPEC
    with pytest.raises(GenpolicyError, match="cannot be resumed from"):
        checkpoint.load(ship).training_state()


def test_another_number_of_processes_is_refused(saved, monkeypatch):
    monkeypatch.setattr(checkpoint.distributed, "world_size", lambda: 2)
    with pytest.raises(GenpolicyError, match="written by 1 processes, cannot be resumed by 2"):
        checkpoint.load(saved[2]).training_state()


def test_wrong_paths_are_explained(tmp_path):
    with pytest.raises(GenpolicyError, match="no such file or folder"):
        checkpoint.resolve(tmp_path / "nothing")
    with pytest.raises(GenpolicyError, match="holds neither"):
        checkpoint.resolve(tmp_path)
    (tmp_path / "best").write_text("step_000000001\n")
    with pytest.raises(GenpolicyError, match="names step_000000001, which is missing"):
        checkpoint.resolve(tmp_path)
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(GenpolicyError, match="expected a file that names a step folder"):
        checkpoint.resolve(tmp_path / "image.png")


def test_a_policy_is_no_value_function(saved):
    with pytest.raises(GenpolicyError, match="holds a 'diffusion', which is no value function"):
        load_value(saved[2])


def test_weights_that_do_not_fit_the_config_are_refused(saved, monkeypatch):
    stored = checkpoint.load(saved[2])
    stored.config["policy"]["hidden"] = [8, 8, 8]
    monkeypatch.setattr(checkpoint, "load", lambda path: stored)
    with pytest.raises(GenpolicyError, match="disagree"):
        load(saved[2])


def test_objects_that_need_code_are_refused():
    with pytest.raises(GenpolicyError, match="cannot hold a set"):
        checkpoint.plain({"a": [1, {2}]})
