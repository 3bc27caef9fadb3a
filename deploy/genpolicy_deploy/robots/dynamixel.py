"""Driver of arms with Dynamixel X servos on one serial bus: OpenManipulator, Koch and their like.

Protocol 2.0 through ROBOTIS' SDK: one Sync Read and one Sync Write per exchange. What the servos
were told when they were assembled (ids, modes, limits, gains) is checked and left alone; what the
driver needs is written: answers without delay, no ramp of the servo's own, goals, torque. Torque
comes on with the goal where the servo already is.

When the bus falls silent while the arm moves, the servos stop by their own Bus Watchdog. A servo
that did so takes no goals any more; the driver sees it and ends with a sentence.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import numpy as np

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.base import Limits
from genpolicy_deploy.robots.device import DeviceSpec, DeviceState, Vector
from genpolicy_deploy.robots.dynamixel_bus import BusFaultError, DynamixelBus, SilenceError
from genpolicy_deploy.robots.servo_joints import ServoJoints
from genpolicy_deploy.robots.silence import Silence

TURN = 4096  # ticks
REACH = (-131_000, 131_000)  # 32 turns; further away are goals that the SDK should stuff
MODELS = {  # number: (name, unit of effort: A, or share of the greatest load)
    1020: ("XM430-W350", 2.69e-3),
    1030: ("XM430-W210", 2.69e-3),
    1060: ("XL430-W250", 1e-3),
    1070: ("XC430-W150", 1e-3),
    1080: ("XC430-W240", 1e-3),
    1120: ("XM540-W270", 2.69e-3),
    1130: ("XM540-W150", 2.69e-3),
    1190: ("XL330-M077", 1e-3),
    1200: ("XL330-M288", 1e-3),
}
# Control table: address, bytes.
RETURN_DELAY, MODE, MAX_POSITION, MIN_POSITION = (9, 1), (11, 1), (48, 4), (52, 4)
TORQUE, RETURN_LEVEL, HARDWARE_ERROR, WATCHDOG = (64, 1), (68, 1), (70, 1), (98, 1)
RAMP_ACCELERATION, RAMP_VELOCITY, GOAL, POSITION = (108, 4), (112, 4), (116, 4), (132, 4)
PRESENT = (126, 10)  # current or load [2], velocity [4], position [4]
POSITION_MODE, EXTENDED_MODE = 3, 4
ERRORS = ("input voltage", "", "overheating", "motor encoder", "electrical shock", "overload")
TRIPPED = 255
WATCHDOG_UNIT_S = 0.02
STATUS_BYTES, SYNC_BYTES = 11, 14  # around data
USB_S = 0.001  # one way


class DynamixelDevice:
    """See ``Device``. Effort is A, or the share of the greatest load where a servo measures none.

    Args:
        joints: their names.
        limits: of the joints; must lie inside what the servos permit.
        stop: "hold" or "release" (no torque: the arm falls).
        port: device file of the bus, such as /dev/ttyUSB0.
        ids, zero, scale: see ``ServoJoints``; a turn has 4096 ticks.
        baud: bits per second.
        reply_s: how long an answer may take before it is given up, beyond its bits.
        watchdog_s: silence on the bus after which moving servos stop by themselves.

    Raises:
        GenpolicyError: options that do not fit the joints.
    """

    def __init__(
        self,
        joints: tuple[str, ...],
        limits: Limits,
        stop: str,
        port: str,
        ids: Sequence[int],
        zero: Sequence[int],
        scale: Sequence[float] | None = None,
        baud: int = 1_000_000,
        reply_s: float = 0.006,
        watchdog_s: float = 0.2,
    ) -> None:
        count = len(joints)
        self._servos = ServoJoints("dynamixel", joints, limits, ids, zero, scale, TURN, REACH)
        self._stop = stop
        self._watchdog = round(watchdog_s / WATCHDOG_UNIT_S)
        if not 1 <= self._watchdog <= 127:
            raise GenpolicyError("robot 'dynamixel': watchdog_s must lie between 0.02 and 2.54")
        if reply_s < 0.001:
            raise GenpolicyError("robot 'dynamixel': reply_s must be at least 0.001")
        self._bus = DynamixelBus(port, baud, reply_s, self._servos.names)
        self._ticks, self._unit, self._effort = np.zeros((3, count))
        self._fault = ""  # of a write, told with the next measurement
        self._guarded = False  # the servos' watchdogs are on
        self._suspect = False  # they may have tripped
        self._answered_ns = 0
        self._silence = Silence()
        answers = count * (STATUS_BYTES + PRESENT[1])
        exchange = 2 * SYNC_BYTES + answers + count * (2 + GOAL[1])
        self.spec = DeviceSpec(
            name="dynamixel",
            joints=joints,
            max_rate_hz=1.0 / (2.0 * USB_S + 10 * exchange / baud),
            on_silence=f"servos stop by themselves after {watchdog_s:g} s, with torque",
            reports_effort=True,
        )

    def connect(self) -> None:
        """See ``Device``."""
        self._bus.port.open()
        self._guarded = self._suspect = False
        self._silence = Silence()
        for index, servo in enumerate(self._servos.ids):
            self._check_servo(index, servo)
        for servo in self._servos.ids:
            self._prepare(servo)
        for servo in self._servos.ids:
            self._bus.set(servo, GOAL, self._bus.get(servo, POSITION))
        for servo in self._servos.ids:
            self._bus.set(servo, TORQUE, 1)

    def read(self, state: DeviceState) -> None:
        """See ``Device``. A measurement is one of all joints; a part of one is a fault."""
        if self._fault:
            state.faults.append(self._fault)
            self._fault = ""
        before = time.monotonic_ns()
        try:
            answers, alerts = self._bus.sync_read(PRESENT)
            self._check_alerts(alerts)
            self._check_watchdogs(before)
        except BusFaultError as error:
            state.faults.append(str(error))
            self._silence.asked(not isinstance(error, SilenceError))
            return
        self._silence.asked(True)
        self._answered_ns = before
        for index, data in enumerate(answers):
            self._effort[index] = int.from_bytes(data[0:2], "little", signed=True)
            self._ticks[index] = int.from_bytes(data[6:10], "little", signed=True)
        self._servos.to_position(self._ticks, state.position)
        np.multiply(self._effort, self._unit, out=state.effort)
        state.seq += 1
        state.t_ns = before  # no joint was measured earlier

    def write(self, command: Vector) -> bool:
        """See ``Device``. Goals are not confirmed: none are sent while nobody answers."""
        if self._silence.withholds():
            return False
        sent = False
        try:
            self._bus.sync_write(GOAL, self._servos.to_ticks(command))
            sent = True
            if not self._guarded:
                self._guard()
        except BusFaultError as error:
            self._fault = str(error)
        return sent

    def stop(self) -> None:
        """Hold: torque and last goals stay. Release: no torque. Watchdogs are off in both."""
        if not self._bus.port.is_open:
            return
        self._guarded = False
        for servo in self._servos.ids:
            with contextlib.suppress(GenpolicyError):
                self._bus.set(servo, WATCHDOG, 0)
            if self._stop == "release":  # also where the first write was not answered
                with contextlib.suppress(GenpolicyError):
                    self._bus.set(servo, TORQUE, 0)

    def close(self) -> None:
        """See ``Device``."""
        self._bus.port.close()

    def _check_servo(self, index: int, servo: int) -> None:
        """Whether it is one that the driver knows, sound, and goes where the limits do."""
        name, bus = self._servos.names[servo], self._bus
        model = bus.model(servo)
        if model not in MODELS:
            known = ", ".join(f"{text} ({number})" for number, (text, _) in MODELS.items())
            raise GenpolicyError(f"{name} is model {model}; the driver knows {known}")
        self._unit[index] = MODELS[model][1] * self._servos.signs[index]
        bus.set(servo, RETURN_LEVEL, 2)  # before anything is read
        self._check_alerts([servo] if bus.get(servo, HARDWARE_ERROR) else [])
        mode = bus.get(servo, MODE)
        if mode not in (POSITION_MODE, EXTENDED_MODE):
            raise GenpolicyError(
                f"{name} is in operating mode {mode}: set it to {POSITION_MODE} (position) with "
                "DYNAMIXEL Wizard"
            )
        low, high = bus.get(servo, MIN_POSITION), bus.get(servo, MAX_POSITION)
        needed = self._servos.ends[index]
        if mode == POSITION_MODE and not low <= needed[0] <= needed[1] <= high:
            raise GenpolicyError(
                f"{name} permits {low} to {high} ticks, joints.low and joints.high need "
                f"{needed[0]} to {needed[1]}: narrow them, or change zero or the servo's limits"
            )

    def _prepare(self, servo: int) -> None:
        """Answers at once; goals are pursued without a ramp, for the envelope has made one."""
        bus = self._bus
        if bus.get(servo, RETURN_DELAY) and not bus.get(servo, TORQUE):
            bus.set(servo, RETURN_DELAY, 0)  # cannot be written under torque, only costs time
        bus.set(servo, WATCHDOG, 0)  # a tripped one is put back
        bus.set(servo, RAMP_ACCELERATION, 0)
        bus.set(servo, RAMP_VELOCITY, 0)

    def _guard(self) -> None:
        """Switch the servos' watchdogs on. From now on silence stops them."""
        self._bus.sync_write(WATCHDOG, [self._watchdog] * len(self._servos.ids))
        watchdogs, _ = self._bus.sync_read(WATCHDOG)
        if all(data[0] == self._watchdog for data in watchdogs):
            self._guarded = True
            self._answered_ns = time.monotonic_ns()

    def _check_watchdogs(self, now_ns: int) -> None:
        """After a silence long enough, ask whether servos have stopped by themselves."""
        silence_s = (now_ns - self._answered_ns) * 1e-9
        self._suspect |= self._guarded and silence_s > 0.5 * self._watchdog * WATCHDOG_UNIT_S
        if not self._suspect:
            return
        watchdogs, _ = self._bus.sync_read(WATCHDOG)
        for name, data in zip(self._servos.names.values(), watchdogs, strict=True):
            if data[0] == TRIPPED:
                raise GenpolicyError(
                    f"{name} has stopped by itself: its bus was silent for "
                    f"{self._watchdog * WATCHDOG_UNIT_S:g} s; start again"
                )
        self._suspect = False

    def _check_alerts(self, servos: Sequence[int]) -> None:
        """Name the hardware error of the first of ``servos``."""
        for servo in servos:
            errors = self._bus.get(servo, HARDWARE_ERROR)
            what = ", ".join(text for bit, text in enumerate(ERRORS) if errors >> bit & 1)
            raise GenpolicyError(
                f"{self._servos.names[servo]} reports a hardware error: {what or errors}; find the "
                "cause, then switch its power off and on"
            )
