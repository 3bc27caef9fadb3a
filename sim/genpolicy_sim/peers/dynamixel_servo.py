"""One Dynamixel X servo: its control table, by the rules of the e-manual."""

from __future__ import annotations

import numpy as np

from genpolicy_sim.peers.arm import PeerArm
from genpolicy_sim.peers.dynamixel_bus import Result

MODELS = (1020, 1020, 1020, 1020, 1020, 1020, 1020, 1060)
ZERO = (2048, 2048, 2048, 2048, 2048, 1024, 2048, 1024)  # ticks where a joint is at zero
TURN = 4096  # ticks
SCALE = (2.0 * np.pi,) * 7 + (0.08,)  # rad, for the gripper m, per turn
EFFORT = (3.72,) * 7 + (25.0,)  # present current (load) per N m (N): 10 N m per A; 0.1 % of 40 N

# Control table of the X series: address, bytes.
MODEL, FIRMWARE, ID = (0, 2), (6, 1), (7, 1)
RETURN_DELAY, OPERATING_MODE, MAX_POSITION, MIN_POSITION = (9, 1), (11, 1), (48, 4), (52, 4)
SHUTDOWN, TORQUE, RETURN_LEVEL, HARDWARE_ERROR = (63, 1), (64, 1), (68, 1), (70, 1)
WATCHDOG, GOAL, CURRENT, VELOCITY, POSITION = (98, 1), (116, 4), (126, 2), (128, 4), (132, 4)
TABLE_BYTES, READ_ONLY_FROM, EEPROM_END = 147, 122, 64
GOALS = range(100, 120)  # what a tripped watchdog locks
READ_ONLY = (*range(7), HARDWARE_ERROR[0])
DEFAULTS = {
    **{FIRMWARE: 48, RETURN_DELAY: 250, OPERATING_MODE: 3, MAX_POSITION: 4095},
    **{SHUTDOWN: 0x34, RETURN_LEVEL: 2},
}
ERRORS = {"voltage": 0, "overheating": 2, "encoder": 3, "shock": 4, "overload": 5}  # bits
TRIPPED = 255
WATCHDOG_UNIT_S = 0.02
VELOCITY_UNIT = 0.229 * 2.0 * np.pi / 60.0  # rad/s


class Servo:
    """One servo: its control table, and the joint that it moves."""

    def __init__(self, arm: PeerArm, joint: int) -> None:
        self._arm, self._joint, self.id = arm, joint, joint + 1
        self._table = bytearray(TABLE_BYTES)
        self.offset = 0  # ticks by which the measurement is wrong
        self.set(MODEL, MODELS[joint])
        self.set(ID, self.id)
        for register, value in DEFAULTS.items():
            self.set(register, value)
        self.measure()
        self.set(GOAL, self.get(POSITION))

    def get(self, register: tuple[int, int]) -> int:
        """A register's value, with sign where it has four bytes."""
        address, size = register
        data = self._table[address : address + size]
        return int.from_bytes(data, "little", signed=size == 4)

    def set(self, register: tuple[int, int], value: int) -> None:
        """Put a value into a register, whatever the rules."""
        address, size = register
        mask = (1 << 8 * size) - 1
        self._table[address : address + size] = (value & mask).to_bytes(size, "little")

    def measure(self) -> None:
        """What the servo's sensors say now."""
        arm, j = self._arm, self._joint
        per_tick = SCALE[j] / TURN
        self.set(POSITION, ZERO[j] + round(arm.position[j] / per_tick) + self.offset)
        self.set(VELOCITY, round(arm.velocity[j] * 2.0 * np.pi / SCALE[j] / VELOCITY_UNIT))
        self.set(CURRENT, round(arm.effort[j] * EFFORT[j]))

    @property
    def goal(self) -> float:
        """Goal of the joint."""
        return (self.get(GOAL) - ZERO[self._joint]) * SCALE[self._joint] / TURN

    @property
    def alert(self) -> bool:
        """Whether answers carry the alert bit."""
        return self.get(HARDWARE_ERROR) != 0

    def read(self, address: int, size: int) -> tuple[Result, bytes]:
        """READ."""
        if address + size > TABLE_BYTES:
            return Result.RANGE, b""
        return Result.OK, bytes(self._table[address : address + size])

    def ping(self) -> tuple[Result, bytes]:
        """PING: model and firmware."""
        return Result.OK, self.read(*MODEL)[1] + self.read(*FIRMWARE)[1]

    def write(self, address: int, data: bytes) -> Result:
        """WRITE, by the rules of the control table."""
        end = address + len(data)
        if end > READ_ONLY_FROM or any(address <= a < end for a in READ_ONLY):
            return Result.ACCESS
        if address < EEPROM_END and self.get(TORQUE):
            return Result.ACCESS
        if address in GOALS and self.get(WATCHDOG) == TRIPPED:
            return Result.RANGE
        if address == GOAL[0] and not self._permits(int.from_bytes(data, "little", signed=True)):
            return Result.LIMIT
        if address == TORQUE[0] and data[0] and self.alert:
            return Result.FAILED  # shut down until its next reboot
        before = self.get(TORQUE)
        self._table[address:end] = data
        if self.get(TORQUE) != before:
            self._arm.power(self._joint, self.get(TORQUE) != 0)
            if self.get(TORQUE):
                self._arm.target[self._joint] = self.goal
        return Result.OK

    def _permits(self, goal: int) -> bool:
        if self.get(OPERATING_MODE) != 3:  # extended: many turns
            return abs(goal) <= 1_048_575
        return self.get(MIN_POSITION) <= goal <= self.get(MAX_POSITION)

    def watch(self, silence_s: float) -> None:
        """The Bus Watchdog: after ``silence_s`` without an instruction, stop where the arm is."""
        limit = self.get(WATCHDOG)
        if self.get(TORQUE) and 0 < limit < TRIPPED and silence_s > limit * WATCHDOG_UNIT_S:
            self.set(WATCHDOG, TRIPPED)
            self._arm.target[self._joint] = self._arm.position[self._joint]

    def fail(self, bit: int) -> None:
        """A hardware error, which switches torque off if Shutdown says so."""
        self.set(HARDWARE_ERROR, self.get(HARDWARE_ERROR) | 1 << bit)
        if self.get(SHUTDOWN) >> bit & 1:
            self.set(TORQUE, 0)
            self._arm.power(self._joint, False)

    def reboot(self) -> None:
        """Clears errors; torque is off after it."""
        self.set(HARDWARE_ERROR, 0)
        self.set(WATCHDOG, 0)
        self.set(TORQUE, 0)
        self._arm.power(self._joint, False)
