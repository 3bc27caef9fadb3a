"""The simulated robot: exactly the training environment in lockstep, a real robot otherwise."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import genpolicy_sim
import numpy as np
import pytest
from genpolicy_deploy import robots
from genpolicy_deploy.actions import action_mode
from genpolicy_deploy.cli import main
from genpolicy_deploy.controller import Controller
from genpolicy_deploy.envelope import Envelope
from genpolicy_deploy.flight_log import read_log
from genpolicy_deploy.replay import replay
from genpolicy_deploy.robots.base import check_fits
from genpolicy_deploy.robots.mujoco import MujocoRobot
from genpolicy_deploy.run import Run, RunOptions
from genpolicy_deploy.session import FAULT, INTERRUPTED
from genpolicy_deploy.watchdog import Watchdog
from genpolicy_sim.lift import task_spec
from genpolicy_sim.osc import DeltaScale, Goal, delta_to_goal, rotation_matrix
from genpolicy_sim.robot import HOME
from hypothesis import given
from hypothesis import strategies as st

from genpolicy.spec import GenpolicyError

PATIENT = Watchdog(measurement_hold=5.0, measurement_stop=9.0, chunk_hold=10.0, chunk_stop=20.0)


@pytest.fixture(scope="module")
def expert_path(build_controller, tmp_path_factory) -> Path:
    return build_controller(tmp_path_factory.mktemp("onnx") / "expert.onnx", expert=True)


@pytest.fixture(scope="module")
def lockstep():
    with MujocoRobot(lockstep=True) as robot:
        yield robot


def make_env():
    return genpolicy_sim.make("lift", 1, dtype=np.float64, num_threads=1)


def envelope_of(robot):
    return Envelope(robot.spec, 1.0 / 20.0)


def play(robot, envelope, env, actions_of, seed, steps):
    """Both sides execute the same actions; yields (state, step result) after each."""
    env.reset(seed)
    robot.reset(seed)
    state = robot.read()
    envelope.start(state.position)
    mode, target = action_mode(env.spec), np.zeros(7)
    for step in range(steps):
        action = actions_of(step, state)
        mode.target(action, state.position, envelope.command, target)
        robot.write(envelope.apply(target, state.position))
        result = env.step(action[None, None].astype(np.float64))
        state = robot.wait(60.0)
        yield state, result


def test_lockstep_episode_equals_the_training_environment_and_lifts(lockstep, expert_path):
    controller = Controller(expert_path)
    ta = controller.contract.spec.exec_steps
    chunk = None

    def actions_of(step, state):
        nonlocal chunk
        if step % ta == 0:
            chunk = controller.act(state.observation).actions
        return chunk[step % ta]

    env, envelope = make_env(), envelope_of(lockstep)
    for seed in (3, 8):
        for step, (state, result) in enumerate(
            play(lockstep, envelope, env, actions_of, seed, 100)
        ):
            # Goals differ by rounding only (rotation vectors here, matrices there), see the two
            # tests below. That is 1e-16, until contact with the cube amplifies it.
            tolerance = 1e-10 if step < 10 else 1e-3
            for name, value in state.observation.items():
                want = result.final_obs[name][0, 0]
                np.testing.assert_allclose(value, want, rtol=0, atol=tolerance)
            assert state.success == result.success[0]
            if result.done[0]:
                break
        assert state.success
        assert envelope.violations == {} and envelope.blocked == 0


unit = st.floats(-1.0, 1.0)


@given(st.lists(unit, min_size=7, max_size=7), st.lists(unit, min_size=7, max_size=7))
def test_targets_are_the_training_environments_goals(action, here):
    position = np.array(here) * [0.5, 0.5, 1.0, 1.7, 1.7, 1.7, 1.0]
    action, target = np.array(action), np.zeros(7)
    action_mode(task_spec()).target(action, position, position, target)
    rotation = rotation_matrix(position[None, 3:6]) @ HOME
    goal = delta_to_goal(action[None], position[None, :3], rotation, position[6:], DeltaScale())
    np.testing.assert_array_equal(target[:3], goal.pos[0])
    np.testing.assert_allclose(rotation_matrix(target[None, 3:6]) @ HOME, goal.rot, atol=1e-13)
    assert target[6] == goal.gripper[0]


def test_lockstep_is_bit_identical_given_the_same_goals(lockstep):
    env, rng = make_env(), np.random.default_rng(0)
    env.reset(4)
    lockstep.reset(4)
    state, seen = lockstep.read(), np.zeros((1, env.spec.obs_dim))
    for _ in range(30):
        axes = state.position + rng.normal(size=7) * [0.02, 0.02, 0.03, 0.1, 0.1, 0.1, 0.0]
        lockstep.write(axes)
        rotation = rotation_matrix(axes[None, 3:6]) @ HOME
        env.sim.set_goal(Goal(axes[None, :3], rotation, axes[6:]))
        env.sim.substep(25)
        env.sim.observe(seen)
        state = lockstep.wait(60.0)
        np.testing.assert_array_equal(np.concatenate(list(state.observation.values())), seen[0])


def test_default_limits_alter_no_action_of_the_training_range(lockstep):
    rng = np.random.default_rng(0)

    def extreme(step, state):
        # Full-scale actions that change sign at random: the largest jumps a policy can make.
        action = np.sign(rng.uniform(-1, 1, 7))
        action[2] = 1.0 if state.position[2] < 0.9 else action[2]
        action[:2] = np.where(
            np.abs(state.position[:2]) > 0.2, -np.sign(state.position[:2]), action[:2]
        )
        return action

    envelope = envelope_of(lockstep)
    assert len(list(play(lockstep, envelope, make_env(), extreme, 5, 60))) == 60
    assert envelope.violations == {}


def test_reset_starts_where_the_training_environment_starts(lockstep):
    env = make_env()
    for seed in (0, 11):
        observation = env.reset(seed)
        lockstep.reset(seed)
        for name, value in lockstep.read().observation.items():
            np.testing.assert_array_equal(value, observation[name][0, 0])


@pytest.mark.parametrize("task", ["can", "square"])
def test_scenes_with_one_arm_are_robots_too(task):
    env = genpolicy_sim.make(task, 1, dtype=np.float64, num_threads=1)
    rng = np.random.default_rng(0)
    with MujocoRobot(lockstep=True, task=task) as robot:
        check_fits(env.spec, robot.spec)
        actions = lambda step, state: rng.uniform(-1, 1, 7)  # noqa: E731
        for state, result in play(robot, envelope_of(robot), env, actions, 3, 8):
            for name, value in state.observation.items():
                want = result.final_obs[name][0, 0]
                np.testing.assert_allclose(value, want, rtol=0, atol=1e-10)


def test_what_is_not_one_arm_or_not_lift_is_refused():
    for options, message in (
        ({"task": "transport"}, "'transport' is none of those with one arm: lift, can"),
        ({"task": "can", "cube_range": (0.1, 0.1)}, "cube_range is Lift's"),
    ):
        with pytest.raises(GenpolicyError, match=message):
            MujocoRobot(**options)
    spec = genpolicy_sim.make("transport", 1).spec
    refused = pytest.raises(GenpolicyError, match=r"names \(robot0_dx.* do not fit the robot")
    with MujocoRobot(lockstep=True) as robot, refused:
        check_fits(spec, robot.spec)


def test_imperfect_measurements_are_late_noisy_and_incomplete():
    positions, ages, seqs = [], [], []
    with MujocoRobot(latency_s=0.06, jitter_s=0.02, noise=0.01, loss=0.3) as robot:
        robot.reset(3)
        for _ in range(200):  # at rest: the brakes are on
            state = robot.wait(60.0)
            ages.append(time.monotonic_ns() - state.t_ns)
            seqs.append(state.seq)
            positions.append(state.observation["robot0_eef_pos"].copy())
    assert min(ages) >= 60e6
    deviation = np.std(positions, axis=0)
    assert deviation.min() > 0.005 and deviation.max() < 0.02
    assert len(set(seqs)) == len(seqs) == 200 and seqs == sorted(seqs)
    assert 0.15 < 1.0 - len(seqs) / (seqs[-1] - seqs[0] + 1) < 0.6


def test_measurements_are_perfect_unless_asked_otherwise():
    positions, ages = [], []
    with MujocoRobot() as robot:
        robot.reset(3)
        for _ in range(50):
            state = robot.wait(60.0)
            ages.append(time.monotonic_ns() - state.t_ns)
            positions.append(state.observation["robot0_eef_pos"].copy())
    assert min(ages) < 50e6
    assert np.ptp(positions, axis=0).max() == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": 1.0}, "loss = 1.0 must be a number from 0 to below 1"),
        ({"latency_s": -0.1}, "latency_s = -0.1"),
        ({"noise": float("nan")}, "noise = nan"),
        ({"jitter_s": "0.1"}, "jitter_s = '0.1'"),
        ({"jitter_s": 0.1, "lockstep": True}, "lockstep is exact: remove jitter_s"),
    ],
)
def test_impossible_imperfections_are_refused(options, message):
    with pytest.raises(GenpolicyError, match=message):
        MujocoRobot(**options)


def test_killed_robot_process_stops_the_run(controller_path, tmp_path):
    robot = MujocoRobot()
    options = RunOptions(controller_path, episodes=50, log=tmp_path / "run.mcap")
    run = Run(options, robot=robot, watchdog=PATIENT)
    read = robot.read
    count = 0

    def read_and_kill():
        nonlocal count
        count += 1
        if count == 300:
            os.kill(robot.pid, signal.SIGKILL)
        return read()

    robot.read = read_and_kill
    run.execute()
    assert run.exit_code == FAULT and "the process has ended" in run.fault
    assert run.result()["state"] == "STOP"
    log = read_log(tmp_path / "run.mcap")
    assert log.complete and log.event_texts("process_died")


def test_ctrl_c_stops_the_robot_and_leaves_whole_files(expert_path, tmp_path):
    log, result = tmp_path / "run.mcap", tmp_path / "run.json"
    process = subprocess.Popen(
        f"{sys.executable} -m genpolicy_deploy run {expert_path} --seconds 600 --log {log} "
        f"--json {result}".split(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120.0
    while not (log.exists() and log.stat().st_size > 100_000) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, errors
    assert b"Traceback" not in errors
    written = json.loads(result.read_text())
    assert written["interrupted"] and written["state"] == "STOP" and written["fault"] is None
    recorded = read_log(log)
    assert recorded.complete
    assert recorded.event_texts("state")[-1].startswith("STOP")
    assert replay(log).passed
    assert not list(tmp_path.glob(".*"))


def test_cli_runs_episodes_and_writes_the_report(expert_path, tmp_path, capsys):
    path, log = tmp_path / "out.json", tmp_path / "out.mcap"
    code = main(f"run {expert_path} --episodes 1 --seed 2 --json {path} --log {log}".split())
    assert code == 0, capsys.readouterr()
    result = json.loads(path.read_text())
    assert result["stage"]["episodes"] == 1 and result["stage"]["seed0"] == 2
    assert 0.0 <= result["stage"]["success_lo"] < result["stage"]["success_hi"] <= 1.0
    assert result["deploy"]["control_hz"] == 20.0 and result["deploy"]["ticks"] > 100
    assert "episodes" in capsys.readouterr().out
    assert main(["replay", str(log)]) == 0
    # Nothing is overwritten.
    assert main(["run", str(expert_path), "--json", str(path)]) == 2


@pytest.mark.parametrize(
    "any_controller_path", ["flow", "gaussian", "latent", "on_the_fly"], indirect=True
)
def test_controllers_of_every_policy_drive_the_robot(any_controller_path, tmp_path, capsys):
    result, log = tmp_path / "out.json", tmp_path / "out.mcap"
    run = f"run {any_controller_path} --robot mujoco --seconds 1 --json {result} --log {log}"
    assert main(run.split()) == 0, capsys.readouterr()
    assert json.loads(result.read_text())["deploy"]["ticks"] > 10
    assert read_log(log).complete
    assert main(["replay", str(log)]) == 0


def test_unknown_robots_and_bad_configurations_are_refused(tmp_path):
    with pytest.raises(GenpolicyError, match=r"'r2d2' does not exist: choose .*mujoco"):
        robots.make("r2d2")
    config = tmp_path / "arm.toml"
    for text, message in (
        ("robot = ", "not valid TOML"),
        ('robot = "ur"', "describes robot 'ur'"),
        ('robot = "mujoco"\n[limits]\nspeed = [1]', "limits.speed does not exist"),
        ('robot = "mujoco"\n[limits]\nvelocity = [1]', "limits.velocity needs 7 values"),
        ('robot = "mujoco"\n[limits]\njerk = 3', "lists of numbers"),
        ('robot = "mujoco"\nport = 3', "port"),
    ):
        config.write_text(text)
        with pytest.raises(GenpolicyError, match=message):
            robots.make("mujoco", config)
    with pytest.raises(GenpolicyError, match="cannot be read"):
        robots.make("mujoco", tmp_path / "missing.toml")


def test_shipped_configurations_load():
    folder = Path(__file__).parents[2] / "configs" / "robot"
    files = sorted(folder.glob("*.toml"))
    assert files
    for file in files:
        robots.make(tomllib.loads(file.read_text())["robot"], file)
