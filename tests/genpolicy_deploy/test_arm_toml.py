"""What an arm's TOML file may say, and what is said about one that says something else."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from arm_bench import document
from genpolicy_deploy import robots
from genpolicy_deploy.robots.arm import ArmRobot
from genpolicy_deploy.robots.arm_toml import parse
from genpolicy_deploy.robots.drivers import DRIVERS
from genpolicy_deploy.robots.mujoco import LIMITS

from genpolicy.spec import GenpolicyError

CONFIGS = Path(__file__).parents[2] / "configs" / "robot"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: p.stem)
def test_every_shipped_file_is_understood(path):
    name = tomllib.loads(path.read_text())["robot"]
    if name not in DRIVERS:
        pytest.skip("not an arm")
    config = robots.make(name, path).config
    assert config.model is None or config.model.is_file()
    assert 0.05 < config.braking_s() < 2.0


def test_defaults():
    config = parse("lerobot", document())
    assert (config.mode, config.stop, config.silence_s) == ("joints", "hold", 0.1)
    assert config.axes == config.joints == ("shoulder", "elbow")
    assert config.gripper is None and config.home is None and config.hand_limits is None


def test_the_hands_limits_are_those_of_the_simulated_robot_unless_given(tmp_path):
    (tmp_path / "arm.xml").write_text("<mujoco/>")
    given = document(mode="hand", model="arm.xml", hand="tip", hand_limits={"low": [-1.0] * 6})
    config = parse("lerobot", given, tmp_path / "arm.toml")
    assert config.axes == ("x", "y", "z", "rx", "ry", "rz")
    assert config.hand_limits.low == (-1.0,) * 6 and config.hand_limits.high == LIMITS.high[:6]
    assert config.model == (tmp_path / "arm.xml").resolve()
    with_gripper = given | {
        "gripper": {"joint": "elbow", "open": 0.04, "closed": 0.0},
        "hand_limits": {},
    }
    config = parse("lerobot", with_gripper, tmp_path / "arm.toml")
    assert config.axes[-1] == "gripper" and config.hand_limits == LIMITS


def joints(**changes):
    return {"joints": document()["joints"] | changes}


GRIPPER = {"joint": "elbow", "open": 1.0, "closed": 0.0}
WORKSPACE = {"low": [0, 0, 0], "high": [1, 1, 1]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 1}, "speed does not exist: choose rate_hz, mode"),
        ({"rate_hz": 10}, "rate_hz must be at least 20"),
        ({"rate_hz": "fast"}, "rate_hz must be a positive number"),
        ({"rate_hz": True}, "rate_hz must be a positive number"),
        ({"rate_hz": float("nan")}, "rate_hz must be a positive number"),
        ({"mode": "arm"}, "mode = 'arm' must be hand or joints"),
        ({"mode": "hand"}, "needs model"),
        ({"stop": "fall"}, "stop = 'fall' must be hold or release"),
        ({"silence_s": 0.001}, "silence_s must lie between"),
        ({"silence_s": 5.0}, "silence_s must lie between"),
        ({"model": "nowhere.xml"}, "model = 'nowhere.xml' is neither"),
        ({"model": "panda.xml", "mode": "hand"}, "hand is missing"),
        ({"hand": "tip"}, "hand needs model"),
        ({"workspace": WORKSPACE}, "workspace needs model"),
        ({"joints": {"names": []}}, "joints.names must be a list"),
        (joints(names=["a", "a"]), "joints.names names a joint twice"),
        (joints(low=[0.0]), "joints.low must be a list of 2 numbers"),
        (joints(low=[2.0, 0.0]), "every limits.low must be below"),
        (joints(velocity=[0.0, 1.0]), "limits.velocity must be finite and positive"),
        (joints(torque=[1.0, 1.0]), "joints.torque does not exist"),
        ({"joints": {"names": ["a", "b"]}}, "joints.low is missing: give 2 numbers"),
        ({"home": [0.0]}, "home must be a list of 2 numbers"),
        ({"home": [0.0, 3.0]}, "home puts joint 'elbow' at 3, allowed are -2 to 2"),
        ({"gripper": GRIPPER | {"joint": "jaw"}}, "gripper.joint 'jaw' is not among"),
        ({"gripper": GRIPPER | {"open": 0.0}}, "gripper.open and gripper.closed must differ"),
        ({"gripper": {"joint": "elbow"}}, "gripper.open must be a number"),
        ({"hand_limits": {"low": [0.0]}}, 'hand_limits are for mode = "hand"'),
        ({"observations": {"q": "joints.torque"}}, "observations.q = 'joints.torque' is none of"),
        ({"observations": {"q": 3}}, "observations.q must be text"),
        ({"observations": {"q": "hand.position"}}, "observations.q needs model and hand"),
        ({"observations": {"q": "gripper.position"}}, "observations.q needs the table"),
        ({"observations": {"q": "udp:0:3"}}, "is none of"),
        ({"observations": {"q": "udp:7000:3", "p": "udp:7000:2"}}, "two sensors from one UDP port"),
        ({"driver": 3}, r"\[driver\] must be a table"),
    ],
)
def test_what_is_wrong_is_said(changes, message):
    with pytest.raises(GenpolicyError, match=message) as raised:
        parse("lerobot", document(**changes), Path("arm.toml"))
    assert str(raised.value).startswith("arm.toml: ")


def test_a_date_is_no_option():
    with pytest.raises(GenpolicyError, match="no known type"):
        ArmRobot("lerobot", document(driver={"when": tomllib.loads("d = 2026-01-01")["d"]}))


def test_braking_time_bounds_the_real_one():
    from genpolicy_deploy.joint_envelope import JointEnvelope

    config = parse("lerobot", document())
    dt = 1.0 / config.rate_hz
    envelope = JointEnvelope(config.joints, config.limits, dt)
    envelope.start(np.zeros(2))
    for step in range(60):
        envelope.track(np.array([0.9, 1.8]) * min(step / 20, 1.0), np.array([1.0, 2.0]))
    steps = 0
    while not envelope.at_rest:
        envelope.hold()
        steps += 1
    assert 0 < steps * dt <= config.braking_s()
