"""Flight logs as demonstrations: the actions that were executed, with what they led to."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from genpolicy_deploy.recorder import Recorder
from genpolicy_deploy.states import State
from toy_demonstrations import make_task

from genpolicy.data.hdf5 import read_demonstrations
from genpolicy.spec import PolicySpec

TASK = make_task({"position": 3, "velocity": 2})
SPEC = PolicySpec(TASK, 1, 4, 4)
RNG = np.random.default_rng(0)
PERIOD = int(1e9 / TASK.control_hz)


class Run:
    """Records episodes as the control loop does, without its clock."""

    def __init__(self, path, task=TASK):
        self.recorder = Recorder(path, SPEC, 2, {"spec": replace(SPEC, task=task).to_dict()})
        self.number, self.now = -1, 0

    def episode(self, steps, *, success=False, hold_after=None, cut=False, people=()):
        """One episode; returns its observations ``[steps + 1, 5]`` and actions."""
        self.number += 1
        obs = RNG.normal(size=(steps + 1, 5)).astype(np.float32)
        actions = RNG.uniform(-1.2, 1.2, size=(steps, TASK.action.dim)).astype(np.float32)
        for step in range(steps + (not cut)):
            record = self.recorder.step
            record["t_ns"], record["episode"], record["step"] = self.now, self.number, step
            record["obs"], record["acted"] = obs[step], step < steps
            record["action"] = actions[step] if step < steps else 0.0
            record["success"], record["intervention"] = success and step == steps, step in people
            self.recorder.put("step")
            self.tick(State.RUN)
            if step == hold_after:
                for _ in range(20):
                    self.tick(State.HOLD)
        return obs, actions

    def tick(self, state):
        self.now += PERIOD
        counts = (self.number, 0, 0)
        self.recorder.put_tick(self.now - 1, 0, (np.zeros(2), np.zeros(2)), counts, 0.0, 0.0, state)


def demos(path):
    with h5py.File(path) as file:
        data = file["data"]
        return [
            {
                "obs": np.hstack([data[n]["obs/position"], data[n]["obs/velocity"]]),
                "next_obs": np.hstack([data[n]["next_obs/position"], data[n]["next_obs/velocity"]]),
                **{k: data[n][k][:] for k in ("actions", "rewards", "dones", "interventions")},
            }
            for n in sorted(data, key=lambda name: int(name[5:]))
        ]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "run.mcap"


def test_successes_become_demonstrations_of_what_was_executed(log, cli, tmp_path):
    run = Run(log)
    run.episode(6)
    obs, actions = run.episode(9, success=True, people=(4, 5))
    run.recorder.close()
    code, _, said = cli("convert", log, f"out={tmp_path}/a.hdf5")
    assert code == 0 and "1 of 2 episodes (1 succeeded)" in said and "2 of them by a person" in said
    (demo,) = demos(tmp_path / "a.hdf5")
    np.testing.assert_array_equal(demo["obs"], obs[:-1])
    np.testing.assert_array_equal(demo["next_obs"], obs[1:])
    low, high = np.array(TASK.action.low), np.array(TASK.action.high)
    np.testing.assert_array_equal(demo["actions"], np.clip(actions, low, high))
    assert demo["rewards"].tolist() == [0.0] * 8 + [1.0] == demo["dones"].tolist()
    assert np.flatnonzero(demo["interventions"]).tolist() == [4, 5]
    assert read_demonstrations(tmp_path / "a.hdf5").task == TASK


def test_failures_are_kept_on_demand_and_never_end_in_a_done(log, cli, tmp_path):
    run = Run(log)
    run.episode(6)
    run.episode(9, success=True)
    run.episode(5, cut=True)  # a fault: the outcome of its last step is unknown
    run.recorder.close()
    assert cli("convert", log, f"out={tmp_path}/a.hdf5", "only=all")[0] == 0
    found = demos(tmp_path / "a.hdf5")
    assert [len(d["actions"]) for d in found] == [6, 9, 4]
    assert [d["dones"].any() for d in found] == [False, True, False]


def test_a_hold_cuts_an_episode_in_two(log, cli, tmp_path):
    run = Run(log)
    obs, _ = run.episode(10, success=True, hold_after=3)
    run.recorder.close()
    assert cli("convert", log, f"out={tmp_path}/a.hdf5")[0] == 0
    first, second = demos(tmp_path / "a.hdf5")
    np.testing.assert_array_equal(first["obs"], obs[:3])  # step 3 led into the hold
    np.testing.assert_array_equal(second["obs"], obs[4:10])
    assert second["dones"][-1] and not first["dones"].any()


def test_a_person_may_say_which_episodes_succeeded(log, cli, tmp_path):
    run = Run(log)
    run.episode(6)
    run.episode(7)
    run.recorder.close()
    code, _, errors = cli("convert", log, f"out={tmp_path}/a.hdf5")
    assert code == 2 and "2 episodes, none of which succeeded" in errors
    assert cli("convert", log, f"out={tmp_path}/a.hdf5", "succeeded=[1]")[0] == 0
    (demo,) = demos(tmp_path / "a.hdf5")
    assert demo["rewards"].tolist() == [0.0] * 6 + [1.0] and demo["dones"][-1]


def test_bad_input_is_one_sentence(log, cli, tmp_path):
    run = Run(log)
    run.episode(3, success=True)
    run.recorder.close()
    other = Run(tmp_path / "other.mcap", replace(TASK, task="other"))
    other.episode(3, success=True)
    other.recorder.close()
    out = f"out={tmp_path}/a.hdf5"
    for arguments, message in (
        ([log], "convert needs logs and a file"),
        ([out], "convert needs logs and a file"),
        ([log, out, "onyl=all"], "'onyl' is not a key of convert"),
        ([log, out, "only=some"], "only=some: choose success or all"),
        ([log, out, "succeeded=[x]"], "needs a list of episodes"),
        ([log, out, "succeeded=[4]"], "names episode 4; there are [0]"),
        ([log, log, out, "succeeded=[0]"], "one at a time"),
        ([log, tmp_path / "other.mcap", out], "other.mcap: is of another task"),
        ([tmp_path / "none.mcap", out], "none.mcap: cannot be read"),
    ):
        code, _, errors = cli("convert", *arguments)
        assert code == 2 and message in errors, errors
    assert not (tmp_path / "a.hdf5").exists()


def test_a_policy_is_pretrained_from_a_robots_log(log, cli, tmp_path):
    run = Run(log)
    for steps in (12, 20, 9):
        run.episode(steps, success=True, hold_after=5, people=(2, 3))
    run.recorder.close()
    assert cli("convert", log, f"out={tmp_path}/a.hdf5")[0] == 0
    small = ["policy.hidden=[16,16,16]", "policy.train_steps=4", "policy.sample_steps=2"]
    batch = ["algo.batch_size=16", "algo.warmup_steps=2", "algo.decay_steps=20"]
    fast = ["num_threads=1", "wandb.mode=disabled", "iterations=2", f"run_dir={tmp_path}/run"]
    data = ["task=null", f"data.path={tmp_path}/a.hdf5"]
    code, _, errors = cli("pretrain", *data, *small, *batch, *fast)
    assert code == 0, errors
    assert (tmp_path / "run" / "checkpoints" / "last").exists()
