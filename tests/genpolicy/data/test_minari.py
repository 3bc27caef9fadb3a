"""Minari's and D4RL's HDF5 layouts: what is read, and what is refused."""

import dataclasses
import json
import re

import h5py
import numpy as np
import pytest

from genpolicy.data.hdf5 import read_demonstrations
from genpolicy.spec import ActionSpec, Feature, GenpolicyError, TaskSpec

LENGTHS = (4, 7, 3)
HOPPER = TaskSpec(
    task="hopper",
    robot="hopper",
    observations=(Feature("observation", (5,)),),
    action=ActionSpec(("a", "b"), ("", ""), (-1.0, -1.0), (1.0, 1.0)),
    control_mode="actuator",
    control_hz=125.0,
    max_episode_steps=1000,
    score="return",
)
ENV_SPEC = {"id": "Hopper-v5", "max_episode_steps": 1000, "kwargs": {}}
BOX = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-2.0, -1.0], "high": [2.0, 1.0]}


def episode(length, rng, terminated):
    flags = np.zeros((2, length), bool)
    flags[0 if terminated else 1, -1] = True
    return {
        "observations": rng.normal(size=(length + 1, 5)),
        "actions": rng.uniform(-1, 1, (length, 2)).astype(np.float32),
        "rewards": rng.normal(size=length),
        "terminations": flags[0],
        "truncations": flags[1],
    }


@pytest.fixture
def episodes():
    rng = np.random.default_rng(0)
    return [episode(length, rng, terminated=i != 1) for i, length in enumerate(LENGTHS)]


@pytest.fixture
def minari(tmp_path, episodes):
    """As Minari 0.5 writes it: attributes of every group, an empty group of infos."""
    path = tmp_path / "main_data.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs.update(total_episodes=3, total_steps=14, dataset_id="hopper/medium-v0")
        for i, arrays in enumerate(episodes):
            group = file.create_group(f"episode_{i}", track_order=True)
            group.attrs.update(id=i, seed=i, total_steps=LENGTHS[i], rewards_sum=0.0)
            group.create_group("infos")
            for name, array in arrays.items():
                group[name] = array
    return path


@pytest.fixture
def d4rl(tmp_path, episodes):
    """All episodes one after the other, the last one cut off, with D4RL's further groups."""
    path = tmp_path / "hopper_medium-v2.hdf5"
    columns = {
        "observations": [e["observations"][:-1] for e in episodes],
        "next_observations": [e["observations"][1:] for e in episodes],
        "actions": [e["actions"] for e in episodes],
        "rewards": [e["rewards"] for e in episodes],
        "terminals": [e["terminations"] for e in episodes],
        "timeouts": [e["truncations"] for e in episodes],
    }
    with h5py.File(path, "w") as file:
        for name, parts in columns.items():
            array = np.concatenate(parts)
            file[name] = array.astype(np.float32) if array.dtype == float else array
        file["infos/qpos"], file["metadata/algorithm"] = np.zeros((14, 6)), b"SAC"
    return path


def edit(path, change):
    with h5py.File(path, "a") as file:
        change(file)


def replace(file, name, value):
    del file[name]
    file[name] = value


def check(demos, episodes):
    assert demos.lengths.tolist() == list(LENGTHS)
    before = np.concatenate([e["observations"][:-1] for e in episodes])
    np.testing.assert_array_equal(demos.obs["observation"], before.astype(np.float32))
    if demos.next_obs is not None:
        after = np.concatenate([e["observations"][1:] for e in episodes])
        np.testing.assert_array_equal(demos.next_obs["observation"], after.astype(np.float32))
    np.testing.assert_array_equal(demos.actions, np.concatenate([e["actions"] for e in episodes]))
    # only what the task ended has no value beyond: the second episode was cut by time
    np.testing.assert_array_equal(np.flatnonzero(demos.dones), [3, 13])


def test_both_layouts_hold_the_same_demonstrations(minari, d4rl, episodes):
    first, second = (read_demonstrations(path, task=HOPPER) for path in (minari, d4rl))
    check(first, episodes), check(second, episodes)
    assert first.next_obs is not None and second.next_obs is not None
    assert first.task == second.task == HOPPER
    assert first.fingerprint == second.fingerprint


def test_episodes_come_in_the_order_of_their_numbers(minari, episodes):
    with h5py.File(minari, "a") as file:
        file.move("episode_0", "episode_10")  # before episode_2 in the alphabet
    demos = read_demonstrations(minari, task=HOPPER)
    assert demos.lengths.tolist() == [7, 3, 4]
    assert read_demonstrations(minari, task=HOPPER, max_episodes=2).lengths.tolist() == [7, 3]


def test_several_files_of_one_task(minari, d4rl):
    demos = read_demonstrations([minari, d4rl], task=HOPPER, max_episodes=5)
    assert demos.lengths.tolist() == [4, 7, 3, 4, 7]


def test_d4rl_without_next_observations_and_with_a_recording_cut_short(d4rl, episodes):
    def change(file):
        del file["next_observations"]
        flags = file["terminals"][:]
        flags[-1] = False
        replace(file, "terminals", flags)

    edit(d4rl, change)
    demos = read_demonstrations(d4rl, task=HOPPER)
    assert demos.next_obs is None and demos.lengths.tolist() == list(LENGTHS)
    np.testing.assert_array_equal(np.flatnonzero(demos.dones), [3])


def test_without_a_simulator_the_file_says_what_it_is(minari):
    task = read_demonstrations(minari).task
    assert (task.task, task.max_episode_steps, task.action.low) == ("main_data", 7, (-1.0, -1.0))
    metadata = {"env_spec": json.dumps(ENV_SPEC), "action_space": json.dumps(BOX)}
    minari.with_name("metadata.json").write_text(json.dumps(metadata))
    task = read_demonstrations(minari).task
    assert (task.task, task.max_episode_steps, task.score) == ("Hopper-v5", 1000, "return")
    assert (task.action.low, task.action.high) == ((-2.0, -1.0), (2.0, 1.0))
    edit(minari, lambda f: f.attrs.update(env_spec=json.dumps(ENV_SPEC | {"id": "a:b/C-v0"})))
    assert read_demonstrations(minari).task.task == "b-C-v0"  # nearest to the data counts


def test_dictionaries_of_observations(tmp_path, episodes):
    path = tmp_path / "main_data.hdf5"
    with h5py.File(path, "w") as file:
        for name, array in episodes[0].items():
            if name != "observations":
                file[f"episode_0/{name}"] = array
        file["episode_0/observations/goal"] = episodes[0]["observations"][:, :2]
        file["episode_0/observations/place"] = episodes[0]["observations"][:, 2:]
    demos = read_demonstrations(path)
    assert {f.name: f.shape for f in demos.task.observations} == {"goal": (2,), "place": (3,)}
    chosen = read_demonstrations(path, obs_keys=["place"])
    assert list(chosen.obs) == ["place"] and chosen.task.obs_dim == 3
    with pytest.raises(
        GenpolicyError, match=r"observations \['goal', 'place'\], task hopper needs"
    ):
        read_demonstrations(path, task=HOPPER)


def set_value(name, value):
    def change(file):
        array = file[name][:].astype(float)
        array.flat[-1] = value
        replace(file, name, array)

    return change


BAD_MINARI = [
    (lambda f: f["episode_1"].pop("terminations"), "episode_1: no terminal flags `terminations`"),
    (lambda f: f["episode_1"].pop("truncations"), "episode_1: no terminal flags `truncations`"),
    (lambda f: f["episode_2"].pop("actions"), "episode_2: no dataset `actions`"),
    (lambda f: f["episode_2"].pop("observations"), "episode_2: no dataset `observations`"),
    (set_value("episode_0/observations", np.inf), "episode_0: next_obs/observation is not finite"),
    (set_value("episode_0/rewards", np.nan), "episode_0: rewards is not finite"),
    (set_value("episode_0/actions", 1.5), "episode_0: .* outside .*action_space in Minari's"),
    (lambda f: replace(f, "episode_0/rewards", np.zeros(3)), "rewards has 3 steps but actions"),
    (
        lambda f: replace(f, "episode_0/observations", np.zeros((4, 5))),
        "observations? has 4 rows for 4 actions",
    ),
    (lambda f: replace(f, "episode_2/observations", np.zeros((4, 6))), "episode_2: .*shape"),
    (
        lambda f: replace(f, "episode_1/terminations", np.arange(7) == 2),
        "episode_1: terminated at step 2 of 7 but goes on",
    ),
    (
        lambda f: [
            replace(f, f"episode_0/{n}", f[f"episode_0/{n}"][:k])
            for n, k in (
                ("observations", 1),
                ("actions", 0),
                ("rewards", 0),
                ("terminations", 0),
                ("truncations", 0),
            )
        ],
        "episode_0: the episode has zero steps",
    ),
    (lambda f: f.attrs.update(env_spec="{"), "env_spec is not JSON"),
]
BAD_D4RL = [
    (lambda f: f.pop("terminals"), "no terminal flags `terminals`"),
    (lambda f: f.pop("timeouts"), "no terminal flags `timeouts`"),
    (lambda f: f.pop("actions"), "no dataset `actions`"),
    (set_value("observations", -np.inf), "steps 11 to 13: obs/observation is not finite"),
    (lambda f: replace(f, "rewards", np.zeros(9)), "rewards has 9 rows but actions has 14"),
    (lambda f: replace(f, "actions", np.zeros(14)), r"actions must be \[steps, dims\]"),
]


def refuses(path, message, **options):
    with pytest.raises(GenpolicyError) as caught:
        read_demonstrations(path, **options)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    assert re.search(message, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(("change", "message"), BAD_MINARI, ids=[m for _, m in BAD_MINARI])
def test_broken_minari_files_are_refused(minari, change, message):
    edit(minari, change)
    refuses(minari, message)


@pytest.mark.parametrize(("change", "message"), BAD_D4RL, ids=[m for _, m in BAD_D4RL])
def test_broken_d4rl_files_are_refused(d4rl, change, message):
    edit(d4rl, change)
    refuses(d4rl, message)


def test_a_file_of_no_steps(d4rl):
    names = ("observations", "next_observations", "actions", "rewards", "terminals", "timeouts")
    edit(d4rl, lambda f: [replace(f, n, f[n][:0]) for n in names])
    refuses(d4rl, "zero steps")


@pytest.mark.parametrize("layout", ["minari", "d4rl"])
def test_data_of_another_task_are_refused_by_their_sizes(layout, request):
    path = request.getfixturevalue(layout)
    wide = dataclasses.replace(
        HOPPER, task="walker2d", observations=(Feature("observation", (17,)),)
    )
    refuses(path, "dataset has observation size 5, task walker2d 17", task=wide)
    one = dataclasses.replace(HOPPER, action=ActionSpec(("a",), ("",), (-1.0,), (1.0,)))
    refuses(path, "dataset has action size 2, task hopper 1", task=one)
    refuses(path, "has no masks: leave out data.mask=train", mask="train")
    refuses(path, "no observation", obs_keys=["velocity"])
