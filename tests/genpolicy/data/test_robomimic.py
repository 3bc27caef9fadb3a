"""Round trip, foreign files and every way a file can be wrong."""

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_demonstrations import make_episode, make_task

from genpolicy.data.hdf5 import read_demonstrations
from genpolicy.data.robomimic_writer import RobomimicWriter
from genpolicy.spec import GenpolicyError

ENV_ARGS = {
    "env_name": "Lift",
    "env_version": "1.4.1",
    "type": 1,
    "env_kwargs": {
        "robots": ["Panda"],
        "control_freq": 20,
        "controller_configs": {
            "type": "OSC_POSE",
            "control_delta": True,
            "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
        },
    },
}


def write(path, task, episodes):
    with RobomimicWriter(path, ENV_ARGS, task, model_file="<mujoco/>") as writer:
        for episode in episodes:
            writer.add(episode)
    return path


@pytest.fixture
def path(tmp_path, task, episodes):
    return write(tmp_path / "demos.hdf5", task, episodes)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=13),
    dims=st.dictionaries(
        st.text("abcxyz_0", min_size=1, max_size=8), st.integers(1, 4), min_size=1, max_size=4
    ),
    action_dim=st.integers(1, 5),
)
def test_what_is_written_is_read(lengths, dims, action_dim):
    task = make_task(dims, action_dim)
    rng = np.random.default_rng(1)
    episodes = [make_episode(task, length, rng) for length in lengths]
    with tempfile.TemporaryDirectory() as folder:
        demos = read_demonstrations(write(Path(folder) / "d.hdf5", task, episodes))
    assert demos.task == task
    assert demos.lengths.tolist() == lengths
    assert demos.next_obs is not None
    for start, episode in zip(demos.starts, episodes, strict=True):
        span = slice(start, start + len(episode))
        np.testing.assert_array_equal(demos.actions[span], episode.actions.astype(np.float32))
        np.testing.assert_array_equal(demos.rewards[span], episode.rewards.astype(np.float32))
        np.testing.assert_array_equal(demos.dones[span], episode.dones)
        for key in dims:
            np.testing.assert_array_equal(demos.obs[key][span], episode.obs[key])
            np.testing.assert_array_equal(demos.next_obs[key][span], episode.next_obs[key])


def test_schema_is_robomimics(path, episodes):
    with h5py.File(path) as file:
        data = file["data"]
        assert data.attrs["total"] == sum(len(e) for e in episodes)
        assert json.loads(data.attrs["env_args"]) == ENV_ARGS
        assert sorted(data) == ["demo_0", "demo_1", "demo_2"]
        demo = data["demo_2"]
        assert set(demo) == {"actions", "rewards", "dones", "states", "obs", "next_obs"}
        assert demo.attrs["num_samples"] == 7
        assert demo.attrs["model_file"] == "<mujoco/>"
        assert demo["dones"].dtype == np.int64
        np.testing.assert_array_equal(demo["states"], episodes[2].states)
        assert sorted(file["mask/train"][:]) == [b"demo_0", b"demo_1", b"demo_2"]
        assert file["mask/valid"].shape == (0,)


def test_every_tenth_demonstration_is_for_validation(tmp_path, task):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "d.hdf5", task, [make_episode(task, i + 1, rng) for i in range(21)])
    assert read_demonstrations(path, mask="valid").lengths.tolist() == [10, 20]
    assert read_demonstrations(path, mask="train").num_episodes == 19
    # Demonstrations come in the order of their numbers: 10 after 9, not after 1.
    assert read_demonstrations(path).lengths.tolist() == list(range(1, 22))
    assert read_demonstrations(path, max_episodes=3).lengths.tolist() == [1, 2, 3]


def test_several_files_become_one_data_set(tmp_path, task, path):
    rng = np.random.default_rng(5)
    longer = replace(task, max_episode_steps=80, versions={"toy": "2"})
    other = write(tmp_path / "other.hdf5", longer, [make_episode(task, 5, rng)])
    demos = read_demonstrations([path, other])
    assert demos.lengths.tolist() == [4, 1, 7, 5]
    assert demos.starts.tolist() == [0, 4, 5, 12]
    assert demos.task.max_episode_steps == 80
    assert read_demonstrations([path, other], max_episodes=2).num_episodes == 2
    assert demos.fingerprint != read_demonstrations(path).fingerprint


def test_fingerprint_is_of_the_data_not_of_the_file(tmp_path, task, episodes, path):
    again = write(tmp_path / "again.hdf5", task, episodes)
    assert read_demonstrations(path).fingerprint == read_demonstrations(again).fingerprint
    episodes[1].actions[0, 0] += 0.25 * (1 if episodes[1].actions[0, 0] < 0 else -1)
    changed = write(tmp_path / "changed.hdf5", task, episodes)
    assert read_demonstrations(path).fingerprint != read_demonstrations(changed).fingerprint


def test_files_of_different_tasks_are_refused(tmp_path, task, path):
    rng = np.random.default_rng(0)
    other = replace(task, control_hz=50.0)
    second = write(tmp_path / "second.hdf5", other, [make_episode(task, 3, rng)])
    with pytest.raises(GenpolicyError, match=r"second\.hdf5: control_hz differs from .*demos"):
        read_demonstrations([path, second])


def test_observations_can_be_chosen(path, task):
    demos = read_demonstrations(path, obs_keys=["velocity"])
    assert [f.name for f in demos.task.observations] == ["velocity"]
    assert demos.task.observations[0].unit == "m"
    assert list(demos.obs) == ["velocity"]


# ---- published robomimic files -------------------------------------------------------------------


@pytest.fixture
def foreign(path):
    """A file as robomimic's own tools write it: its keys, no task, float64, images beside."""
    with h5py.File(path, "a") as file:
        del file["data"].attrs["genpolicy_task"]
        for demo in file["data"].values():
            steps = len(demo["actions"])
            del demo["obs"], demo["next_obs"], demo["actions"]
            demo["actions"] = np.linspace(-1, 1, steps * 7).reshape(steps, 7)
            for key, dim in {
                "robot0_eef_pos": 3,
                "robot0_eef_quat": 4,
                "robot0_gripper_qpos": 2,
                "robot0_joint_pos": 7,
                "object": 10,
            }.items():
                demo[f"obs/{key}"] = np.arange(steps * dim, dtype=float).reshape(steps, dim)
            demo["obs/agentview_image"] = np.zeros((steps, 8, 8, 3), np.uint8)
    return path


def test_published_file_gives_its_task(foreign):
    demos = read_demonstrations(foreign)
    task = demos.task
    assert (task.task, task.robot, task.control_hz) == ("lift", "Panda", 20.0)
    names = [f.name for f in task.observations]
    assert names == ["robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object"]
    assert task.obs_dim == 19
    assert task.control_mode == "osc_pose_delta"
    assert task.control == {"position_scale": 0.05, "rotation_scale": 0.5}
    assert task.action.names[0] == "dx"
    assert task.versions == {"robosuite": "1.4.1"}
    assert task.max_episode_steps == 7  # the longest demonstration
    assert demos.next_obs is None
    assert demos.actions.dtype == demos.obs["object"].dtype == np.float32


def test_robosuite_15_nests_its_controllers(foreign):
    with h5py.File(foreign, "a") as file:
        args = json.loads(file["data"].attrs["env_args"])
        part = {"type": "OSC_POSE", "input_type": "delta", "output_max": [0.1] * 3 + [0.2] * 3}
        body = {"type": "BASIC", "body_parts": {"right": part}}
        args["env_kwargs"]["controller_configs"] = body
        del args["env_kwargs"]["control_freq"]
        file["data"].attrs["env_args"] = json.dumps(args)
    task = read_demonstrations(foreign).task
    assert task.control == {"position_scale": 0.1, "rotation_scale": 0.2}
    assert task.control_hz == 20.0


def test_unusual_but_legal_content_is_read(foreign, tmp_path):
    """No masks, other people's keys, demos in no order and with gaps, float32 and integers."""
    usual = read_demonstrations(foreign)
    path = tmp_path / "unusual.hdf5"
    with h5py.File(foreign) as old, h5py.File(path, "w") as new:
        data = new.create_group("data", track_order=True)
        data.attrs["env_args"] = old["data"].attrs["env_args"]
        data.attrs["hash"] = "of somebody's tool"
        names = sorted(old["data"], key=lambda name: int(name.split("_")[1]))
        for number, name in reversed([(3 * i, name) for i, name in enumerate(names)]):
            old.copy(old["data"][name], data, f"demo_{number}")
            demo = data[f"demo_{number}"]
            for key, kind in {"actions": "f4", "rewards": "i8", "dones": "f8"}.items():
                values = demo[key][:].astype(kind)
                del demo[key]
                demo[key] = values
            del demo.attrs["num_samples"]
            demo["action_dict/rel_pos"] = np.zeros((3, 3))
            demo["datagen_info/subtask"] = np.zeros(1)
        data["notes"] = np.array([b"recorded on a rainy day"])
        new["meta"] = np.zeros(3)
    demos = read_demonstrations(path)
    assert demos.task.observations == usual.task.observations
    np.testing.assert_array_equal(demos.actions, usual.actions)
    np.testing.assert_array_equal(demos.lengths, usual.lengths)
    np.testing.assert_array_equal(demos.rewards, usual.rewards.astype(int))
    for key, value in usual.obs.items():
        np.testing.assert_array_equal(demos.obs[key], value)


def test_unknown_environment_is_described_by_its_shapes(foreign):
    with h5py.File(foreign, "a") as file:
        args = {"env_name": "My-Env", "type": 2, "env_kwargs": {}}
        file["data"].attrs["env_args"] = json.dumps(args)
        for demo in file["data"].values():
            steps = len(demo["actions"])
            del demo["obs"]
            demo["obs/flat"] = np.zeros((steps, 4))
            demo["obs/scalar"] = np.zeros(steps)
    demos = read_demonstrations(foreign)
    shapes = {f.name: f.shape for f in demos.task.observations}
    assert shapes == {"flat": (4,), "scalar": (1,)}
    assert demos.obs["scalar"].shape == (len(demos), 1)
    assert demos.task.control_mode == "unspecified"
    assert demos.task.task == "my-env"


# ---- bad input -----------------------------------------------------------------------------------


def refuses(path, *words, **kwargs):
    with pytest.raises(GenpolicyError) as caught:
        read_demonstrations(path, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert re.search(word, message), f"{word!r} is not in {message!r}"


def test_missing_file(tmp_path):
    refuses(tmp_path / "no.hdf5", r"no\.hdf5: no such file", "genpolicy collect")


def test_empty_file(tmp_path):
    (tmp_path / "d.hdf5").touch()
    refuses(tmp_path / "d.hdf5", r"d\.hdf5: the file is empty")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_file(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refuses(path, r"demos\.hdf5: not a whole HDF5 file")


def test_text_file(tmp_path):
    (tmp_path / "d.hdf5").write_text("step,reward\n")
    refuses(tmp_path / "d.hdf5", "not a whole HDF5 file")


def test_no_paths():
    refuses([], "at least one HDF5 file")


def _replace(demo, key, value):
    del demo[key]
    demo[key] = value


def _with(array, value):
    array = np.array(array, dtype=float)
    array.flat[-1] = value
    return array


BAD = [
    ("no data group", lambda f: f.move("data", "stuff"), ["robomimic's group `data`", "stuff"]),
    ("no demos", lambda f: [f["data"].pop(k) for k in list(f["data"])], ["no demonstration"]),
    ("no obs", lambda f: f["data/demo_1"].pop("obs"), ["demo_1: no group `obs`", "dataset_states"]),
    ("no actions", lambda f: f["data/demo_0"].pop("actions"), ["demo_0: no dataset `actions`"]),
    ("no rewards", lambda f: f["data/demo_2"].pop("rewards"), ["demo_2: no dataset `rewards`"]),
    (
        "key missing in one demo",
        lambda f: f["data/demo_2/obs"].pop("velocity"),
        ["demo_2: no obs/velocity", r"\['position'\]"],
    ),
    (
        "NaN in obs",
        lambda f: _replace(
            f["data/demo_2"], "obs/position", _with(f["data/demo_2/obs/position"], np.nan)
        ),
        ["demo_2: obs/position is not finite", "at step 6"],
    ),
    (
        "infinity in actions",
        lambda f: _replace(f["data/demo_0"], "actions", _with(f["data/demo_0/actions"], np.inf)),
        ["demo_0: actions is not finite"],
    ),
    (
        "NaN in rewards",
        lambda f: _replace(f["data/demo_1"], "rewards", [np.nan]),
        ["demo_1: rewards is not finite"],
    ),
    (
        "NaN in next_obs",
        lambda f: _replace(
            f["data/demo_1"], "next_obs/velocity", _with(f["data/demo_1/obs/velocity"], np.nan)
        ),
        ["demo_1: next_obs/velocity is not finite"],
    ),
    (
        "too large for float32",
        lambda f: _replace(
            f["data/demo_1"], "obs/velocity", _with(f["data/demo_1/obs/velocity"], 1e39)
        ),
        ["demo_1: obs/velocity is not finite"],
    ),
    (
        "lengths disagree",
        lambda f: _replace(f["data/demo_0"], "rewards", np.zeros(3)),
        ["demo_0: rewards has 3 steps but actions has 4"],
    ),
    (
        "observation too short",
        lambda f: _replace(f["data/demo_0"], "obs/velocity", np.zeros((3, 2))),
        ["demo_0: obs/velocity has 3 steps but actions has 4"],
    ),
    (
        "num_samples disagrees",
        lambda f: f["data/demo_2"].attrs.update(num_samples=9),
        ["demo_2: num_samples=9 but actions has 7 steps"],
    ),
    (
        "episodes of different dims",
        lambda f: _replace(f["data/demo_1"], "obs/velocity", np.zeros((1, 5))),
        [r"demo_1: obs/velocity has shape \(5,\) per step but the task says \(2,\)"],
    ),
    (
        "actions of another dim",
        lambda f: _replace(f["data/demo_1"], "actions", np.zeros((1, 3))),
        [r"demo_1: actions has shape \(3,\) per step but the task says \(2,\)"],
    ),
    (
        "flat actions",
        lambda f: _replace(f["data/demo_1"], "actions", np.zeros(1)),
        [r"demo_1: actions has shape \(\) per step"],
    ),
    (
        "actions out of bounds",
        lambda f: _replace(f["data/demo_0"], "actions", _with(f["data/demo_0/actions"], 1.5)),
        [r"demo_0: actions\[3\] has a1=1.5, outside \[-1, 1\]"],
    ),
    (
        "text instead of numbers",
        lambda f: _replace(f["data/demo_1"], "rewards", [b"high"]),
        ["demo_1: rewards does not hold numbers"],
    ),
    (
        "task is not JSON",
        lambda f: f["data"].attrs.update(genpolicy_task="{"),
        ["genpolicy_task is not JSON"],
    ),
    (
        "task of another shape",
        lambda f: f["data"].attrs.update(genpolicy_task="[1]"),
        ["genpolicy_task is not a JSON object"],
    ),
    ("task without entries", lambda f: f["data"].attrs.update(genpolicy_task="{}"), ["task spec"]),
    (
        "neither task nor env_args",
        lambda f: [f["data"].attrs.pop(k) for k in ("genpolicy_task", "env_args")],
        ["neither attribute env_args nor genpolicy_task"],
    ),
]


@pytest.mark.parametrize(("change", "words"), [pytest.param(*b[1:], id=b[0]) for b in BAD])
def test_broken_file_is_refused_by_name(path, change, words):
    with h5py.File(path, "a") as file:
        change(file)
    refuses(path, r"demos\.hdf5", *words)


def test_zero_length_episode(path):
    with h5py.File(path, "a") as file:
        demo = file["data/demo_1"]
        for key in ("actions", "rewards", "dones", "obs/position", "obs/velocity"):
            _replace(demo, key, demo[key][:0])
        del demo["next_obs"]
        demo.attrs["num_samples"] = 0
    refuses(path, "demo_1: the episode has zero steps")


def test_wrong_keys_list_the_right_ones(path):
    refuses(path, r"no observation \['speed'\]", "position", "velocity", obs_keys=["speed"])
    refuses(path, "choose observation keys", obs_keys=[])


def test_wrong_masks(path):
    refuses(path, r"no mask `test`: choose one of \['train', 'valid'\]", mask="test")
    refuses(path, "mask `valid` selects no demonstration", mask="valid")
    refuses(path, "max_episodes=0", max_episodes=0)


def test_foreign_actions_must_be_normalised(foreign):
    with h5py.File(foreign, "a") as file:
        _replace(file["data/demo_1"], "actions", np.full((1, 7), 3.0))
    refuses(foreign, r"demo_1: actions\[0\] has dx=3, outside \[-1, 1\]", "genpolicy_task")


def test_images_alone_are_refused(foreign):
    with h5py.File(foreign, "a") as file:
        for demo in file["data"].values():
            for key in [k for k in demo["obs"] if "image" not in k]:
                del demo["obs"][key]
    refuses(foreign, "no low-dimensional observation among", "agentview_image")


# ---- the writer ----------------------------------------------------------------------------------


def test_existing_file_is_not_overwritten(path, task):
    before = path.read_bytes()
    with pytest.raises(GenpolicyError, match=r"demos\.hdf5 exists"):
        RobomimicWriter(path, ENV_ARGS, task)
    assert path.read_bytes() == before


def test_file_that_appears_meanwhile_is_not_overwritten(tmp_path, task, episodes):
    path = tmp_path / "d.hdf5"
    with pytest.raises(GenpolicyError, match="exists"), RobomimicWriter(path, {}, task) as writer:
        writer.add(episodes[0])
        path.write_text("mine")
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_interrupted_writing_leaves_nothing(tmp_path, task, episodes, error):
    with pytest.raises(error), RobomimicWriter(tmp_path / "d.hdf5", {}, task) as writer:
        writer.add(episodes[0])
        assert not (tmp_path / "d.hdf5").exists()
        raise error
    assert list(tmp_path.iterdir()) == []


def test_writer_refuses_what_the_reader_would(tmp_path, task, episodes):
    episodes[0].actions[2, 1] = np.nan
    with (
        pytest.raises(GenpolicyError, match=r"d\.hdf5: demo_0: actions is not finite"),
        RobomimicWriter(tmp_path / "d.hdf5", {}, task) as writer,
    ):
        writer.add(episodes[0])
    assert list(tmp_path.iterdir()) == []


def test_empty_collection_is_refused(tmp_path, task):
    with pytest.raises(GenpolicyError, match="not one episode"):
        RobomimicWriter(tmp_path / "d.hdf5", {}, task).close()
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder(tmp_path, task):
    (tmp_path / "file").touch()
    with pytest.raises(GenpolicyError, match="cannot write there"):
        RobomimicWriter(tmp_path / "file" / "d.hdf5", {}, task)


@pytest.mark.slow
def test_robomimic_reads_our_file(path):
    dataset = pytest.importorskip("robomimic.utils.dataset")
    import robomimic.utils.obs_utils as obs_utils

    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["position", "velocity"]}})
    sequences = dataset.SequenceDataset(
        hdf5_path=str(path),
        obs_keys=("position", "velocity"),
        dataset_keys=("actions", "rewards", "dones"),
        frame_stack=2,
        seq_length=4,
        load_next_obs=True,
        filter_by_attribute="train",
    )
    demos = read_demonstrations(path)
    assert len(sequences) == len(demos)
    np.testing.assert_allclose(sequences[0]["actions"][-4:], demos.actions[:4], atol=1e-6)
