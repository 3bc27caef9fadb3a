"""LeRobot's arms: whatever their object does, a measurement is right, a fault, or an error."""

from __future__ import annotations

import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
from arm_bench import document
from genpolicy_deploy.robots import drivers
from genpolicy_deploy.robots.arm_toml import parse
from genpolicy_deploy.robots.device import DeviceState
from genpolicy_deploy.robots.lerobot import LeRobotDevice

from genpolicy.spec import GenpolicyError

JOINTS = ("pan", "lift", "gripper")
DEGREE = np.pi / 180.0


class Arm:
    """As LeRobot's robots look from outside."""

    def __init__(self, **arguments) -> None:
        self.arguments = arguments
        self.config = SimpleNamespace(disable_torque_on_disconnect=None)
        self.is_calibrated = True
        self.action_features = {"pan.pos": float, "lift.pos": float, "gripper.pos": float}
        self.values = {"pan.pos": 10.0, "lift.pos": -20.0, "gripper.pos": 50.0, "front": "image"}
        self.actions: list[dict] = []
        self.error: Exception | None = None
        self.calls: list[str] = []

    def connect(self, calibrate: bool = True) -> None:
        assert not calibrate, "it would ask a person"
        self.calls.append("connect")
        if self.error:
            raise self.error

    def get_observation(self) -> dict:
        if self.error:
            raise self.error
        return self.values

    def send_action(self, action: dict) -> dict:
        if self.error:
            raise self.error
        self.actions.append(action)
        return action

    def disconnect(self) -> None:
        self.calls.append("disconnect")


@pytest.fixture
def arm(monkeypatch) -> Arm:
    arm = Arm()
    module = types.ModuleType("my_arm")
    module.make = lambda **arguments: arm.__dict__.update(arguments=arguments) or arm
    module.broken = lambda: 1 / 0
    module.nothing = lambda: object()
    monkeypatch.setitem(sys.modules, "my_arm", module)
    return arm


def device(stop: str = "hold", **changes) -> LeRobotDevice:
    options = {
        "factory": "my_arm:make",
        "scale": [DEGREE, -DEGREE, 0.0004],
        "offset": [0.0, 5.0, 0.0],
        "arguments": {"port": "/dev/ttyACM0"},
    }
    return LeRobotDevice(JOINTS, stop, **(options | changes))


def read(lerobot: LeRobotDevice) -> DeviceState:
    state = DeviceState(np.zeros(3), np.zeros(0))
    lerobot.read(state)
    return state


def test_values_become_radians_and_back(arm):
    lerobot = device()
    lerobot.connect()
    assert arm.arguments == {"port": "/dev/ttyACM0"} and arm.calls == ["connect"]
    state = read(lerobot)
    np.testing.assert_allclose(state.position, [10 * DEGREE, 25 * DEGREE, 0.02])
    assert state.seq == 1 and state.t_ns > 0 and not state.faults
    lerobot.write(state.position)
    assert arm.actions[0] == pytest.approx(
        {"pan.pos": 10.0, "lift.pos": -20.0, "gripper.pos": 50.0}
    )
    assert all(type(value) is float for value in arm.actions[0].values())


@pytest.mark.parametrize("bad", [np.nan, np.inf, None, "moving", True, np.True_])
def test_a_value_that_is_no_number_is_a_fault_and_no_measurement(arm, bad):
    lerobot = device()
    lerobot.connect()
    arm.values["lift.pos"] = bad
    state = read(lerobot)
    assert state.seq == 0 and (state.position == 0.0).all()
    assert len(state.faults) == 1 and "lift.pos" in state.faults[0]


def test_numbers_of_other_libraries_are_numbers(arm):
    lerobot = device()
    lerobot.connect()
    arm.values |= {"pan.pos": np.float32(10.0), "lift.pos": np.array(-20.0), "gripper.pos": 50}
    np.testing.assert_allclose(read(lerobot).position, [10 * DEGREE, 25 * DEGREE, 0.02])


def test_a_missing_joint_and_a_lost_packet_are_faults(arm):
    lerobot = device()
    lerobot.connect()
    del arm.values["pan.pos"]
    assert "pan.pos" in read(lerobot).faults[0]
    arm.error = ConnectionError("no status packet")
    state = read(lerobot)
    assert state.seq == 0 and "no status packet" in state.faults[0]


def test_one_lost_command_is_a_fault_and_many_are_an_error(arm, monkeypatch):
    lerobot = device()
    now = [10**9]
    monkeypatch.setattr("genpolicy_deploy.robots.lerobot.time.monotonic_ns", lambda: now[0])
    lerobot.connect()
    arm.error = ConnectionError("no status packet")
    assert not lerobot.write(np.zeros(3))
    arm.error = None
    assert lerobot.write(np.zeros(3))
    assert "was not taken" in read(lerobot).faults[0]
    lerobot.write(np.zeros(3))
    arm.error = ConnectionError("no status packet")
    now[0] += 600_000_000
    with pytest.raises(GenpolicyError, match="takes no commands"):
        lerobot.write(np.zeros(3))


@pytest.mark.parametrize("stop", ["hold", "release"])
def test_what_a_stop_leaves_behind_is_told_to_lerobot(arm, stop):
    lerobot = device(stop)
    lerobot.connect()
    lerobot.stop()
    lerobot.close()
    lerobot.close()
    assert arm.config.disable_torque_on_disconnect is (stop == "release")
    assert arm.calls == ["connect", "disconnect"]


def test_what_is_wrong_is_said(arm):
    for changes, message in (
        ({"factory": "nowhere:make"}, "'nowhere:make' is not found"),
        ({"factory": "my_arm"}, "module:function"),
        ({"factory": "my_arm:absent"}, "is not found"),
        ({"factory": "my_arm:broken"}, "fails, TypeError"),
        ({"factory": "my_arm:nothing", "arguments": {}}, "has no connect"),
    ):
        with pytest.raises(GenpolicyError, match=message):
            device(**changes).connect()
    for changes, message in (
        ({"scale": [1.0]}, "scale must be a list of 3"),
        ({"scale": [1.0, 0.0, 1.0]}, "scale must not be zero"),
        ({"offset": [True, "a", 0.0]}, "offset must be a list of 3"),
        ({"scale": "abc"}, "scale must be a list of 3"),
    ):
        with pytest.raises(GenpolicyError, match=message):
            device(**changes)


def test_another_arm_or_one_that_is_not_calibrated_is_refused(arm):
    del arm.action_features["lift.pos"]
    with pytest.raises(
        GenpolicyError, match=r"has no 'lift.pos'; its keys are gripper.pos, pan.pos"
    ):
        device().connect()
    arm.action_features["lift.pos"] = float
    arm.is_calibrated = False
    with pytest.raises(GenpolicyError, match="lerobot-calibrate"):
        device().connect()
    arm.error = OSError("no such port")
    with pytest.raises(GenpolicyError, match="does not connect, OSError: no such port"):
        device().connect()


def test_drivers_are_built_from_files_and_checked_against_them():
    options = {"factory": "my_arm:make", "scale": [1.0, 1.0]}
    built = drivers.build(parse("lerobot", document(driver=options)))
    assert built.spec.joints == ("shoulder", "elbow")
    for changes, message in (
        ({"driver": options | {"colour": "red"}}, r"\[driver\].*colour"),
        ({"driver": {"scale": [1.0, 1.0]}}, r"\[driver\].*factory"),
        ({"driver": options, "rate_hz": 500}, "rate_hz = 500 is more than .* at most 200"),
    ):
        with pytest.raises(GenpolicyError, match=message):
            drivers.build(parse("lerobot", document(**changes)))
