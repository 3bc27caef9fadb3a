"""Universal Robots' e-Series through RTDE, by the SDK ``ur_rtde``: receive and servoJ.

The SDK uploads its own program to the controller and moves it by registers. Two of its habits need
care. It goes on returning the last measurement when none arrives, so a measurement's age is taken
from the controller's clock. And after a lost connection it connects again and starts its program
by itself, without the watchdog and without the commands that it lost meanwhile. So a gap in the
controller's time while the arm is commanded is the end of the run, and so is a socket that is no
longer the one from the beginning.

On the robot, RTDE's own watchdog ends the program, which brakes the arm, when no command comes for
``watchdog_s``. A protective stop is never cleared from here, and the speed slider is not touched.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots import ur_dashboard
from genpolicy_deploy.robots.device import DeviceSpec, DeviceState, Vector
from genpolicy_deploy.robots.remote_clock import RemoteClock

JOINTS = (
    "shoulder_pan_joint",
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
)
MAX_RATE_HZ = 500.0
_VARIABLES = [
    "timestamp",
    "actual_q",
    "actual_current",
    "robot_mode",
    "safety_mode",
    "runtime_state",
]
_MODES = ["DISCONNECTED", "CONFIRM_SAFETY", "BOOTING", "POWER_OFF", "POWER_ON", "IDLE", "BACKDRIVE"]
_RUNNING = 7
_PLAYING = 2
_SAFE = (1, 2)  # normal, reduced
_SAFETY = {
    3: "protective stop",
    4: "recovery mode",
    5: "safeguard stop",
    6: "emergency stop of the system",
    7: "emergency stop of the robot",
    8: "safety violation",
    9: "safety fault",
    12: "safeguard stop in automatic mode",
    13: "three-position enabling stop",
}
_GAP_PERIODS = 3.5  # more between two measurements means that packages were lost
_RTDE_PORT = 30004
_BEGIN_S, _STOP_S = 0.5, 1.0  # longest waits for the controller's answer
_STOP_DECELERATION = 10.0  # m/s^2 of the tool


class UrDevice:
    """Driver of one arm.

    Effort is the motor current of each joint in A.

    Args:
        host: address of the controller.
        rate_hz: of RTDE, up to 500.
        stop: ``hold``; a UR cannot let go.
        arm: model that the dashboard must name, ``UR5`` for a UR5e.
        lookahead_s: over how long servoj smooths, 0.03 to 0.2 s; the arm lags by about as much.
        gain: of servoj, 100 to 2000.
        watchdog_s: the robot stops when no command came for so long.

    Raises:
        GenpolicyError: an option out of range.
    """

    def __init__(
        self,
        host: str,
        rate_hz: float = 125.0,
        stop: str = "hold",
        arm: str = "UR5",
        lookahead_s: float = 0.1,
        gain: float = 300.0,
        watchdog_s: float = 0.1,
    ) -> None:
        # An SDK that is missing shows before anything is connected:
        import rtde_control
        import rtde_receive

        if stop != "hold":
            raise GenpolicyError("robot 'ur': cannot let go of its joints: set stop = \"hold\"")
        if not (0.03 <= lookahead_s <= 0.2 and 100.0 <= gain <= 2000.0):
            raise GenpolicyError(
                "robot 'ur': driver.lookahead_s must be 0.03 to 0.2 and driver.gain 100 to 2000"
            )
        if not 2.0 / rate_hz <= watchdog_s <= 1.0:
            raise GenpolicyError(
                "robot 'ur': driver.watchdog_s must lie between two periods of rate_hz and 1 s"
            )
        self.spec = DeviceSpec(
            name="ur",
            joints=JOINTS,
            max_rate_hz=MAX_RATE_HZ,
            on_silence=f"ends its program after {watchdog_s:g} s and brakes",
            reports_effort=True,
        )
        self._where = f"robot 'ur' at {host}"
        self._host, self._arm, self._rate_hz = host, arm, rate_hz
        self._lookahead_s, self._gain, self._watchdog_s = lookahead_s, gain, watchdog_s
        self._sdk = (rtde_receive.RTDEReceiveInterface, rtde_control.RTDEControlInterface)
        self._receive: Any = None
        self._control: Any = None
        self._commanded = False  # the watchdog is set and commands flow
        self._measured_ns = 0
        self._sockets: list[tuple[int, int]] = []  # of the connections: descriptor, inode
        self._caller: threading.Thread | None = None  # of the SDK's calls that may not end

    def connect(self) -> None:
        """See ``Device``. Several hundred ms, in which the SDK holds the interpreter."""
        ur_dashboard.check_ready(self._host, self._arm)
        receive, control = self._sdk
        self._clock = RemoteClock()
        try:
            self._receive = receive(self._host, self._rate_hz, _VARIABLES)
            if self._receive.getRuntimeState() == _PLAYING:
                raise GenpolicyError(f"{self._where}: runs a program: stop it at the pendant")
            self._control = control(self._host, self._rate_hz)
            self._sockets = _sockets_to(_RTDE_PORT)
            self._timestamp = self._receive.getTimestamp()
            self._measured_ns = self._read_ns = time.monotonic_ns()
        except (RuntimeError, ValueError) as error:
            self.close()
            raise GenpolicyError(f"{self._where}: {error}") from error
        except GenpolicyError:
            self.close()
            raise

    def read(self, state: DeviceState) -> None:
        """See ``Device``. Does not wait."""
        receive = self._receive
        now_ns = time.monotonic_ns()
        looked_away_s = (now_ns - self._read_ns) / 1e9
        self._read_ns = now_ns
        timestamp = receive.getTimestamp()  # first: the positions are this old at most
        if timestamp == self._timestamp:
            if not receive.isConnected():
                raise GenpolicyError(f"{self._where}: the connection is lost")
            return
        gap = timestamp - self._timestamp
        self._timestamp = timestamp
        self._check_modes()
        self._check_gap(gap)
        if gap > _GAP_PERIODS / self._rate_hz and looked_away_s < gap / 2:
            state.faults.append(f"{self._where}: no measurement for {1e3 * gap:.0f} ms")
        position = np.asarray(receive.getActualQ())
        if not np.isfinite(position).all():
            state.faults.append(f"{self._where}: sent positions that are not finite")
            return
        state.position[:] = position
        state.effort[:] = receive.getActualCurrent()
        state.t_ns = self._measured_ns = self._clock.local_ns(round(timestamp * 1e9), now_ns)
        state.seq += 1

    def write(self, command: Vector) -> bool:
        """See ``Device``. Sends nothing while no measurements arrive: the robot stops by itself."""
        if not (self._receive.isConnected() and self._control.isConnected() and self._same()):
            raise GenpolicyError(f"{self._where}: the connection is lost")
        if not self._fresh():
            return False
        try:
            if self._commanded:
                taken = self._servo(command)
            else:
                taken = self._commanded = self._bounded(lambda: self._begin(command), _BEGIN_S)
        except (RuntimeError, ValueError) as error:
            raise GenpolicyError(f"{self._where}: the connection is lost ({error})") from error
        if not taken:
            time.sleep(_GAP_PERIODS / self._rate_hz)  # until the reason has arrived, too
            self._check_modes()
            raise GenpolicyError(f"{self._where}: does not take commands")
        return True

    def stop(self) -> None:
        """See ``Device``: servoing ends, then the program; the joints hold."""
        if self._control is None or not (self._control.isConnected() and self._fresh()):
            return  # out of reach: its watchdog has stopped it
        self._commanded = False
        self._bounded(self._end, _STOP_S)

    def close(self) -> None:
        """See ``Device``."""
        if self._caller is not None and self._caller.is_alive():
            return  # it still waits in the SDK, which must not be pulled away from under it
        for connection in (self._control, self._receive):
            if connection is not None:
                connection.disconnect()
        self._control = self._receive = None
        self._commanded = False

    def _begin(self, command: Vector) -> bool:
        return self._control.setWatchdog(1.0 / self._watchdog_s) and self._servo(command)

    def _servo(self, command: Vector) -> bool:
        period = 1.0 / self._rate_hz
        return self._control.servoJ(
            command.tolist(), 0.0, 0.0, period, self._lookahead_s, self._gain
        )

    def _end(self) -> bool:
        self._control.servoStop(_STOP_DECELERATION)
        self._control.stopScript()
        return True

    def _bounded(self, call: Callable[[], bool], limit_s: float) -> bool:
        """What ``call`` returns; False when it fails or takes longer than ``limit_s``.

        For those calls of the SDK that wait for the controller's answer, up to minutes.
        """
        answer: list[bool] = []

        def run() -> None:
            with contextlib.suppress(RuntimeError, ValueError):
                answer.append(call())

        self._caller = threading.Thread(target=run, daemon=True)
        self._caller.start()
        self._caller.join(limit_s)
        return answer == [True]

    def _same(self) -> bool:
        """Whether the SDK has not closed a connection and made another."""
        try:
            return all(os.fstat(number).st_ino == inode for number, inode in self._sockets)
        except OSError:
            return False

    def _fresh(self) -> bool:
        return time.monotonic_ns() - self._measured_ns < self._watchdog_s * 1e9

    def _check_modes(self) -> None:
        receive = self._receive
        safety, mode = receive.getSafetyMode(), receive.getRobotMode()
        if safety not in _SAFE:
            raise GenpolicyError(
                f"{self._where}: {_SAFETY.get(safety, f'safety mode {safety}')}: look why, then "
                f"clear it at the pendant"
            )
        if mode != _RUNNING:
            name = _MODES[mode] if 0 <= mode < len(_MODES) else str(mode)
            raise GenpolicyError(f"{self._where}: robot mode {name}, no longer RUNNING")
        if self._commanded and receive.getRuntimeState() != _PLAYING:
            raise GenpolicyError(
                f"{self._where}: its program ended, by the pendant or because no command reached "
                f"it for {self._watchdog_s:g} s"
            )

    def _check_gap(self, gap: float) -> None:
        if gap < 0.0:
            raise GenpolicyError(f"{self._where}: the controller has restarted")
        if self._commanded and gap > self._watchdog_s:
            raise GenpolicyError(
                f"{self._where}: was out of reach for {gap:.2f} s, so its watchdog stopped it"
            )


def _sockets_to(port: int) -> list[tuple[int, int]]:
    """Descriptor and inode of this process' sockets that are connected to ``port``."""
    found = []
    for number in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):  # the folder's own is closed by now
            status = os.fstat(number)
            if stat.S_ISSOCK(status.st_mode):
                with socket.socket(fileno=os.dup(number)) as copy:
                    if copy.family == socket.AF_INET and copy.getpeername()[1] == port:
                        found.append((number, status.st_ino))
    return found
