"""The UR driver, through the real SDK, against a simulated controller in another process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from genpolicy_deploy.robots.device import DeviceState
from peer_process import PeerProcess
from rigs import UR_HOST

from genpolicy.spec import GenpolicyError

pytest.importorskip("rtde_control", reason="needs the extra 'robots'")
from genpolicy_deploy.robots.ur import JOINTS, UrDevice

PERIOD_S = 0.008


@pytest.fixture(scope="module")
def running_peer() -> Iterator[PeerProcess]:
    peer = PeerProcess("ur", "--host", UR_HOST)
    assert peer.ready["host"] == UR_HOST
    yield peer
    peer.close()


@pytest.fixture
def peer(running_peer: PeerProcess) -> PeerProcess:
    for order in ("normal", "remote", "mode running", "end", "reset 0", "state"):
        running_peer.order(order)
    return running_peer


class Driven:
    """A connected driver and what it last measured."""

    def __init__(self, peer: PeerProcess, **options: float) -> None:
        self.device = UrDevice(peer.ready["host"], watchdog_s=0.5, **options)
        self.state = DeviceState(np.zeros(6), np.zeros(6))
        self.faults: list[str] = []
        self.goal: np.ndarray | None = None  # once commanded, always commanded

    def __enter__(self) -> Driven:
        self.device.connect()
        self.run(1.0, until_measured=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.device.stop()
        self.device.close()

    def run(self, seconds: float, turn: float = 0.0, until_measured: bool = False) -> None:
        """Exchange for some time; with ``turn``, the first joint goes there and stops softly."""
        start = self.state.position.copy() if self.goal is None else self.goal
        seq = self.state.seq
        ticks = max(round(seconds / PERIOD_S), 1)
        for tick in range(ticks):
            self.device.read(self.state)
            self.faults += self.state.faults
            self.state.faults.clear()
            if until_measured:
                if self.state.seq > seq:
                    return
            elif turn or self.goal is not None:
                self.goal = start.copy()
                self.goal[0] += turn * 0.5 * (1.0 - np.cos(np.pi * (tick + 1) / ticks))
                self.device.write(self.goal)
            time.sleep(PERIOD_S)

    @property
    def age_s(self) -> float:
        return (time.monotonic_ns() - self.state.t_ns) / 1e9


def test_reports_joints_and_currents_and_moves_them(peer):
    with Driven(peer) as driven:
        before = peer.state()
        assert driven.device.spec.joints == JOINTS
        np.testing.assert_allclose(driven.state.position, before["position"], atol=1e-3)
        currents = 0.1 * np.array(before["effort"])  # the peer's motors give 10 N m per A
        np.testing.assert_allclose(driven.state.effort, currents, atol=0.05)
        driven.run(1.0, turn=0.3)
        driven.run(0.6)
        assert driven.age_s < 0.25
        after = peer.state()
    moved = np.subtract(after["position"], before["position"])
    np.testing.assert_allclose(moved, [0.3, 0, 0, 0, 0, 0], atol=0.01)
    goals = np.array([goal for _, goal in after["goals"]])
    assert goals.shape[1] == 6 and len(goals) > 20
    np.testing.assert_allclose(goals[-1] - goals[0], [0.3, 0, 0, 0, 0, 0], atol=0.02)


def test_nothing_is_commanded_before_the_first_write(peer):
    with Driven(peer) as driven:
        driven.run(0.2)
        assert peer.state()["goals"] == []


def test_stop_ends_the_program_and_the_arm_rests(peer):
    with Driven(peer) as driven:
        driven.run(0.5, turn=0.2)
        driven.device.stop()
        driven.device.stop()
        state = peer.state()
        assert not state["running"]
    time.sleep(0.2)
    assert np.abs(peer.state()["velocity"]).max() < 1e-3


def test_a_driver_that_dies_leaves_an_arm_at_rest(peer):
    """RTDE's watchdog at the robot, not we, ends the motion."""
    code = (
        "import sys, time, numpy as np\n"
        "from genpolicy_deploy.robots.ur import UrDevice\n"
        "from genpolicy_deploy.robots.device import DeviceState\n"
        "device, state = UrDevice(sys.argv[1]), DeviceState(np.zeros(6), np.zeros(6))\n"
        "device.connect()\n"
        "while state.seq < 3: device.read(state); time.sleep(0.005)\n"
        "goal = state.position.copy()\n"
        "while True:\n"
        "    device.read(state); goal[0] += 0.003; device.write(goal); time.sleep(0.008)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, peer.ready["host"]])
    deadline = time.monotonic() + 20.0
    while np.abs(peer.state()["velocity"]).max() < 0.1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert peer.state()["running"], "it never moved"
    child.kill()
    child.wait()
    time.sleep(0.6)
    state = peer.state()
    assert not state["running"] and np.abs(state["velocity"]).max() < 1e-3


def test_lost_packages_are_faults_and_the_run_goes_on(peer):
    with Driven(peer) as driven:
        peer.order("drop 15")
        driven.run(0.5)
        assert any("no measurement for" in fault for fault in driven.faults)
        seq = driven.state.seq
        driven.run(0.3)
        assert driven.state.seq > seq and driven.age_s < 0.25


def test_packages_in_parts_or_twice_do_no_harm(peer):
    with Driven(peer) as driven:
        for order in ("partial 5", "duplicate 5"):
            peer.order(order)
            driven.run(0.4)
            seq = driven.state.seq
            driven.run(0.2)
            assert driven.state.seq > seq
        np.testing.assert_allclose(driven.state.position, peer.state()["position"], atol=1e-3)


def test_positions_that_are_not_finite_are_no_measurement(peer):
    with Driven(peer) as driven:
        peer.order("nan 10000")
        driven.run(0.2)  # those under way
        seq = driven.state.seq
        driven.run(0.2)
        assert driven.state.seq == seq and np.isfinite(driven.state.position).all()
        assert any("not finite" in fault for fault in driven.faults)
    peer.order("nan -10000")


@pytest.mark.parametrize("order", ["freeze", "silent"])
def test_a_measurement_that_stands_still_ages(peer, order):
    """The SDK goes on returning the last one as if nothing had happened."""
    with Driven(peer) as driven:
        peer.order(f"{order} 0.5")
        driven.run(0.35)
        assert driven.age_s > 0.2
        driven.run(0.6)
        assert driven.age_s < 0.25


def test_delayed_packages_are_known_to_be_old(peer):
    with Driven(peer) as driven:
        driven.run(0.4)
        peer.order("delay 0.3 1.5")
        driven.run(1.0)
        assert 0.25 < driven.age_s < 1.0


def test_out_of_reach_while_moving_ends_the_run(peer):
    with Driven(peer) as driven:
        driven.run(0.2, turn=0.05)
        peer.order("silent 1.0")
        with pytest.raises(GenpolicyError, match=r"program ended|out of reach"):
            driven.run(3.0, turn=0.2)
        goals = [t for t, _ in peer.state()["goals"]]
        time.sleep(0.3)
        assert peer.state()["goals"] == [] and goals
    assert not peer.state()["running"]


def test_a_connection_that_the_sdk_made_anew_ends_the_run(peer):
    """It loses commands meanwhile, and the watchdog: see the driver."""
    with pytest.raises(GenpolicyError, match="connection is lost"), Driven(peer) as driven:
        driven.run(0.2, turn=0.1)
        assert len(driven.device._sockets) == 2
        number, inode = driven.device._sockets[1]
        driven.device._sockets[1] = number, inode + 1  # as if it had been another at first
        driven.run(0.5, turn=0.1)


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ("protective", "protective stop"),
        ("estop", "emergency stop of the robot"),
        ("mode power_off", "robot mode POWER_OFF"),
        ("end", "its program ended"),
        ("unplug", "connection is lost"),
    ],
)
def test_what_happens_at_the_robot_ends_the_run_with_a_sentence(peer, order, sentence):
    with Driven(peer) as driven:
        driven.run(0.2, turn=0.05)
        peer.order(order)
        with pytest.raises(GenpolicyError, match=sentence):
            driven.run(5.0, turn=0.2)
    if order == "unplug":
        peer.order("plug")
    programs = peer.state()["programs"]
    time.sleep(0.3)
    state = peer.state()
    assert not state["running"] and state["programs"] == programs
    if order in ("unplug", "protective"):  # and when a person has cleared it, all is well again
        peer.order("normal")
        with Driven(peer) as driven:
            driven.run(0.2, turn=0.05)


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ("protective", "safety status PROTECTIVE_STOP: clear it at the pendant"),
        ("estop", "safety status ROBOT_EMERGENCY_STOP"),
        ("mode idle", "robot mode IDLE: switch it on and release the brakes"),
        ("local", "local control: choose Remote Control"),
    ],
)
def test_an_arm_that_is_not_ready_is_refused(peer, order, sentence):
    peer.order(order)
    device = UrDevice(peer.ready["host"])
    with pytest.raises(GenpolicyError, match=sentence):
        device.connect()
    device.stop()
    device.close()


def test_another_arm_or_none_is_refused(peer):
    with pytest.raises(GenpolicyError, match="is a UR5, not a UR10"):
        UrDevice(peer.ready["host"], arm="UR10").connect()
    with pytest.raises(GenpolicyError, match="dashboard does not answer"):
        UrDevice("127.255.255.254").connect()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stop": "release"}, "cannot let go"),
        ({"gain": 50.0}, "driver.gain 100 to 2000"),
        ({"lookahead_s": 1.0}, "driver.lookahead_s"),
        ({"watchdog_s": 0.001}, "driver.watchdog_s"),
    ],
)
def test_impossible_options_are_refused(options, sentence):
    with pytest.raises(GenpolicyError, match=sentence):
        UrDevice("127.0.0.1", **options)


def test_the_model_has_the_makers_kinematics():
    mujoco = pytest.importorskip("mujoco")
    from genpolicy.data_files import data_path

    model = mujoco.MjModel.from_xml_path(str(data_path("assets") / "ur5e.xml"))
    data = mujoco.MjData(model)
    a = [0.0, -0.425, -0.3922, 0.0, 0.0, 0.0]
    d = [0.1625, 0.0, 0.0, 0.1333, 0.0997, 0.0996]
    alpha = [np.pi / 2, 0.0, 0.0, np.pi / 2, -np.pi / 2, 0.0]
    for q in np.random.default_rng(0).uniform(-3.0, 3.0, (20, 6)):
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        pose = np.eye(4)
        for angle, ai, di, al in zip(q, a, d, alpha, strict=True):
            c, s, ca, sa = np.cos(angle), np.sin(angle), np.cos(al), np.sin(al)
            pose = pose @ np.array(
                [
                    [c, -s * ca, s * sa, ai * c],
                    [s, c * ca, -c * sa, ai * s],
                    [0.0, sa, ca, di],
                    [0.0, 0.0, 0.0, 1.0],
                ]
            )
        np.testing.assert_allclose(data.site("hand").xpos, pose[:3, 3], atol=1e-6)
        np.testing.assert_allclose(data.site("hand").xmat.reshape(3, 3), pose[:3, :3], atol=1e-6)
    assert tuple(model.joint(i).name for i in range(model.njnt)) == JOINTS


def test_the_shipped_configuration_is_understood():
    from genpolicy_deploy.robots.arm_toml import parse
    from genpolicy_deploy.robots.config import load_config

    path = Path(__file__).parents[2] / "configs/robot/ur5e.toml"
    config = parse("ur", load_config(path, "ur"), path)
    device = UrDevice(**config.options, rate_hz=config.rate_hz, stop=config.stop)
    assert device.spec.joints == config.joints and config.model is not None
