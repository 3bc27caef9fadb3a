"""Driver of arms with Feetech STS servos on one serial bus: SO-100, SO-101 and their like.

What the servos were told when they were assembled and calibrated (ids, offsets, limits) is checked
and left alone; what the driver needs and does not find is written: replies without delay, no ramp
of the servo's own, and torque, which comes on with the goal where the servo already is.

An STS servo has no watchdog: when the bus falls silent it goes to its last goal, which is at most
one step of the joint envelope beyond the one before, and holds it.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Mapping, Sequence

import numpy as np

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.base import Limits
from genpolicy_deploy.robots.device import DeviceSpec, DeviceState, Vector
from genpolicy_deploy.robots.feetech_bus import (
    FRAME,
    BusFaultError,
    FeetechBus,
    Status,
    error_text,
    signed,
)
from genpolicy_deploy.robots.servo_joints import ServoJoints
from genpolicy_deploy.robots.silence import Silence

MODELS = {777: "STS3215", 2825: "STS3250", 11272: "SM8512BL"}
TICKS = 4096  # of one turn, all that these servos measure
TRIES = 3  # at connect; a running arm reads again anyway
USB_S = 0.003  # of an exchange, beyond what its bits take
GOAL_BYTES = 2

# Registers.
STORED, STORED_BYTES = 3, 31  # from the model number to the mode
RETURN_DELAY, ENDS, MODE = 7, 9, 33
TORQUE, ACCELERATION, GOAL, SPEED, LOCK = 40, 41, 42, 46, 55
PRESENT = 56  # position, speed, load: two bytes each
PRESENT_BYTES = 6
POSITION_SIGN, LOAD_SIGN = 15, 10
FULL_LOAD = 1000
FASTEST_RAMP = 254


class FeetechDevice:
    """See ``Device``. Effort is the share of the servo's greatest torque, -1 to 1.

    Args:
        joints: their names.
        limits: of the joints; must lie inside what the servos permit.
        stop: "hold" or "release" (no torque: the arm falls).
        port: device file of the bus, such as /dev/ttyACM0.
        ids, zero, scale: see ``ServoJoints``; a turn has 4096 ticks.
        baud: bits per second.
        reply_s: how long an answer may take before it is given up, beyond its bits.

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
        reply_s: float = 0.005,
    ) -> None:
        self._servos = ServoJoints(
            "feetech", joints, limits, ids, zero, scale, TICKS, reach=(0, TICKS - 1)
        )
        self._ends = dict(zip(self._servos.ids, self._servos.ends, strict=True))
        self._stop = stop
        self._bus = FeetechBus(port, baud, reply_s)
        self._ticks = np.zeros(len(joints))
        self._load = np.zeros(len(joints))
        self._fault = ""  # of a write, told with the next measurement
        self._silence = Silence()
        self._torque = False
        exchange = len(joints) * (FRAME + PRESENT_BYTES + GOAL_BYTES + 2) + 16  # bytes
        self.spec = DeviceSpec(
            name="feetech",
            joints=tuple(joints),
            max_rate_hz=1.0 / (USB_S + 10 * exchange / baud),
            on_silence="holds its last goal: the servos have no watchdog",
            reports_effort=True,
        )

    def connect(self) -> None:
        """See ``Device``."""
        self._bus.open()
        for servo, registers in self._registers(STORED, STORED_BYTES).items():
            self._check(self._servos.names[servo], self._ends[servo], registers)
        self._prepare()
        present = self._registers(PRESENT, GOAL_BYTES)
        for servo, data in present.items():
            ticks = signed(int.from_bytes(data, "little"), POSITION_SIGN)
            if not 0 <= ticks < TICKS:
                raise GenpolicyError(
                    f"{self._servos.names[servo]} stands at {ticks} ticks, outside its one turn: "
                    "calibrate it"
                )
        self._set(GOAL, present)
        self._torque = True
        self._set(TORQUE, b"\x01")

    def read(self, state: DeviceState) -> None:
        """See ``Device``. A measurement is one of all joints; a part of one is a fault."""
        if self._fault:
            state.faults.append(self._fault)
            self._fault = ""
        before = time.monotonic_ns()
        try:
            replies = self._bus.sync_read(self._servos.ids, PRESENT, PRESENT_BYTES)
        except BusFaultError as error:
            state.faults.append(str(error))
            return
        self._silence.asked(bool(replies))
        self._check_errors(replies)
        if missing := self._missing(replies):
            state.faults.append(missing)
            return
        for index, servo in enumerate(self._servos.ids):
            ticks, _, load = struct.unpack("<HHH", replies[servo].data)
            self._ticks[index] = signed(ticks, POSITION_SIGN)
            self._load[index] = signed(load, LOAD_SIGN)
        self._servos.to_position(self._ticks, state.position)
        state.effort[:] = self._load / FULL_LOAD * self._servos.signs
        state.seq += 1
        state.t_ns = before  # no joint was measured earlier

    def write(self, command: Vector) -> bool:
        """See ``Device``. Goals are not confirmed: none are sent while nobody answers."""
        if self._silence.withholds():
            return False
        ticks = self._servos.to_ticks(command)
        goals = [tick.to_bytes(GOAL_BYTES, "little") for tick in ticks]
        try:
            self._bus.sync_write(self._servos.ids, GOAL, goals)
        except BusFaultError as error:
            self._fault = str(error)
            return False
        return True

    def stop(self) -> None:
        """Hold: the servos keep torque and their last goals. Release: no torque."""
        if self._torque and self._stop == "release":
            self._torque = False
            off = [b"\x00"] * len(self._servos.ids)
            for _ in range(TRIES):  # unconfirmed: some may report errors, or not answer
                with contextlib.suppress(GenpolicyError, BusFaultError):
                    self._bus.sync_write(self._servos.ids, TORQUE, off)

    def close(self) -> None:
        """See ``Device``."""
        self._torque = False
        self._bus.close()

    def _check(self, name: str, needed: tuple[int, int], registers: bytes) -> None:
        """A known model in position mode, within one turn, with ends that do not clip goals."""
        model = int.from_bytes(registers[:2], "little")
        if model not in MODELS:
            raise GenpolicyError(
                f"{name} is model {model}; the driver knows "
                f"{', '.join(f'{name} ({number})' for number, name in MODELS.items())}"
            )
        if mode := registers[MODE - STORED]:
            raise GenpolicyError(f"{name} is in mode {mode}: set register {MODE} to 0 (position)")
        low, high = struct.unpack_from("<HH", registers, ENDS - STORED)
        if low == high == 0:
            raise GenpolicyError(
                f"{name} turns without end (position limits 0 and 0): set registers {ENDS} to "
                f"{ENDS + 3} to 0 and {TICKS - 1}, or less"
            )
        if needed[0] < low or needed[1] > high:
            raise GenpolicyError(
                f"{name} permits {low} to {high} ticks, joints.low and joints.high need "
                f"{needed[0]} to {needed[1]}: narrow them, or calibrate the servo"
            )

    def _prepare(self) -> None:
        """Answers at once; goals are pursued without a ramp, for the envelope has made one."""
        if any(delay != b"\x00" for delay in self._registers(RETURN_DELAY, 1).values()):
            self._set(LOCK, b"\x00")
            self._set(RETURN_DELAY, b"\x00")
            self._set(LOCK, b"\x01")
        self._set(ACCELERATION, bytes((FASTEST_RAMP,)))
        self._set(SPEED, b"\x00\x00")  # 0: as fast as it can

    def _registers(self, address: int, size: int) -> dict[int, bytes]:
        """Of every servo, insisted on.

        Raises:
            GenpolicyError: a servo does not answer, or reports a hardware error.
        """
        missing = ""
        for _ in range(TRIES):
            try:
                replies = self._bus.sync_read(self._servos.ids, address, size)
            except BusFaultError as error:
                missing = str(error)
                continue
            self._check_errors(replies)
            missing = self._missing(replies)
            if not missing:
                return {servo: status.data for servo, status in replies.items()}
        raise GenpolicyError(
            f"{self._bus.port}: {missing}; check power, cable, ids and baud, and reply_s"
        )

    def _set(self, address: int, values: bytes | dict[int, bytes]) -> None:
        """Write and read back: nobody confirms what all are told."""
        ids = self._servos.ids
        wanted = dict.fromkeys(ids, values) if isinstance(values, bytes) else values
        found: dict[int, bytes] = {}
        for _ in range(TRIES):
            with contextlib.suppress(BusFaultError):
                self._bus.sync_write(ids, address, [wanted[servo] for servo in ids])
            found = self._registers(address, len(wanted[ids[0]]))
            if found == wanted:
                return
        wrong = [self._servos.names[servo] for servo in ids if found[servo] != wanted[servo]]
        raise GenpolicyError(f"register {address} cannot be set in {', '.join(wrong)}")

    def _missing(self, replies: Mapping[int, Status]) -> str:
        if not replies:
            return "no servo gives a sound answer"
        names = [name for servo, name in self._servos.names.items() if servo not in replies]
        return f"no sound answer from {', '.join(names)}" if names else ""

    def _check_errors(self, replies: Mapping[int, Status]) -> None:
        for servo, status in replies.items():
            if status.error:
                raise GenpolicyError(
                    f"{self._servos.names[servo]} reports: {error_text(status.error)}; find the "
                    "cause, then switch its power off and on"
                )
