"""What stands between RTDE and the joints in a UR controller: modes, one program, servoj.

The program that runs is the one that the SDK ``ur_rtde`` uploads. It is not interpreted: what it
does with its registers is acted out here. Input integer register 0 is the command (11 servoj, 16
end of servoj, 33 and 34 stop, 35 watchdog, 255 end), output integer register 0 the answer (1 ready,
2 done). One cycle lasts 2 ms, as on an e-Series.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from genpolicy_sim.peers.arm import Vector

CYCLE_S = 0.002
RUNNING, POWER_OFF = 7, 3  # robot modes
NORMAL, PROTECTIVE_STOP, SAFEGUARD_STOP, ROBOT_EMERGENCY_STOP = 1, 3, 5, 7  # safety modes
STOPPED, PLAYING, PAUSED = 1, 2, 4  # of the program
_SAFETY_BITS = {NORMAL: 1, PROTECTIVE_STOP: 1 << 2, SAFEGUARD_STOP: 1 << 4}
_EMERGENCY_BITS = 1 << 6 | 1 << 7
_SERVOJ, _SERVO_STOP, _STOPL, _STOPJ, _WATCHDOG, _END = 11, 16, 33, 34, 35, 255
_READY, _DONE = 1, 2
MAX_SPEED = np.pi * 1.05  # rad/s: beyond what a joint can do, the controller stops by itself
STOP_DECELERATION = 10.0  # rad/s^2 of its own stops
AMPERE = 0.1  # per N m: what the currents of joints are about


class Controller:
    """Registers, modes and the commanded joints of one arm, advanced cycle by cycle.

    ``values`` are RTDE's outputs by name, current after every ``cycle``.
    """

    def __init__(self, position: Vector) -> None:
        joints = position.size
        self.command = position.copy()  # [J] rad, what the joints are to follow
        self.velocity = np.zeros(joints)  # [J] rad/s, of the command
        self.goals: list[tuple[float, list[float]]] = []  # every servoj received: s, rad
        self.remote = True
        self.programs = 0  # uploads so far
        self._goal = position.copy()
        self._lookahead = 0.1
        self._deceleration = STOP_DECELERATION
        self._servoing = self._executing = self._finishing = False
        self._inputs: dict[str, Any] = {}
        self._watchdog: float | None = None  # s
        self._updated = 0.0  # when the watched register came last, s
        self.values: dict[str, Any] = {
            "robot_mode": RUNNING,
            "safety_mode": NORMAL,
            "runtime_state": STOPPED,
            "speed_scaling": 1.0,
        }
        for group in ("int", "double"):
            zero = 0 if group == "int" else 0.0
            self.values |= {f"output_{group}_register_{i}": zero for i in range(48)}

    def reset(self, position: Vector) -> None:
        """The arm has been put, at rest, where ``position`` says."""
        self.command[:] = self._goal[:] = position
        self.velocity[:] = 0.0

    @property
    def running(self) -> bool:
        """Whether a program runs."""
        return self.values["runtime_state"] == PLAYING

    def receive(self, inputs: dict[str, Any], now: float) -> None:
        """Take over a package of inputs that came at ``now`` s."""
        self._inputs |= inputs
        if "input_int_register_0" in inputs:
            self._updated = now
            if inputs["input_int_register_0"] == _SERVOJ and self.running:
                self._serve_joints(now)

    def load(self, program: str) -> None:
        """A program arrived by the script interface: it replaces the one that runs."""
        if self.values["safety_mode"] != NORMAL or self.values["robot_mode"] != RUNNING:
            return
        self.end_program()
        self._watchdog = None
        self.programs += 1
        self.values["output_int_register_0"] = 0
        if "rtde_control" in program:
            self.values["runtime_state"] = PLAYING
            self._executing = False

    def end_program(self, state: int = STOPPED) -> None:
        """The program ends; the arm brakes."""
        if self.running:
            self.values["runtime_state"] = state
        self._servoing = self._finishing = False
        self._deceleration = STOP_DECELERATION

    def safety(self, mode: int) -> None:
        """Enter a safety mode; ``NORMAL`` is what an operator does at the pendant."""
        self.values["safety_mode"] = mode
        if mode != NORMAL:
            self.end_program(PAUSED if mode == PROTECTIVE_STOP else STOPPED)
        self.values["robot_mode"] = POWER_OFF if mode == ROBOT_EMERGENCY_STOP else RUNNING

    def cycle(self, now: float) -> None:
        """2 ms of the controller, at ``now`` s."""
        if self.running:
            self._run_program(now)
        if self._servoing:
            self._follow()
        elif self.velocity.any():
            self._brake()

    def measure(self, position: Vector, velocity: Vector, effort: Vector, timestamp: float) -> None:
        """Put measurements (rad, rad/s, N m, s of the controller's clock) into ``values``."""
        values, safety = self.values, self.values["safety_mode"]
        values["timestamp"] = timestamp
        values["actual_q"], values["actual_qd"] = position.tolist(), velocity.tolist()
        values["target_q"], values["target_qd"] = self.command.tolist(), self.velocity.tolist()
        values["actual_current"] = (effort * AMPERE).tolist()
        values["safety_status_bits"] = _SAFETY_BITS.get(safety, _EMERGENCY_BITS)
        powered = values["robot_mode"] == RUNNING
        values["robot_status_bits"] = powered * 1 | self.running * 2

    def _serve_joints(self, now: float) -> None:
        doubles = [self._inputs[f"input_double_register_{i}"] for i in range(11)]
        self.goals.append((now, doubles[:6]))
        self._goal[:] = doubles[:6]
        self._lookahead = max(doubles[9], CYCLE_S)

    def _run_program(self, now: float) -> None:
        if self._watchdog is not None and now - self._updated > self._watchdog:
            self.end_program()
            return
        command = self._inputs.get("input_int_register_0", 0)
        if command == _SERVOJ:
            self._servoing = True
        elif command == 0:
            self._executing = False
        elif not self._executing:
            self._executing = self._finishing = True
            self._begin(command, now)
        if self._finishing and not self._moving(command):
            self._finishing = False
            self.values["output_int_register_0"] = _DONE
        elif not self._executing:
            self.values["output_int_register_0"] = _READY

    def _moving(self, command: int) -> bool:
        return command in (_SERVO_STOP, _STOPL, _STOPJ) and bool(self.velocity.any())

    def _begin(self, command: int, now: float) -> None:
        first = self._inputs.get("input_double_register_0", 0.0)
        if command in (_SERVO_STOP, _STOPL, _STOPJ):
            self._servoing = False
            self._deceleration = max(first, 0.1)
        elif command == _WATCHDOG:
            self._watchdog = 1.0 / max(first, 0.01)
            self._updated = now
        elif command == _END:
            self.end_program()

    def _follow(self) -> None:
        """Smooth the goal as ``lookahead_time`` asks for: a lag of about that time."""
        if not np.isfinite(self._goal).all():
            self.safety(PROTECTIVE_STOP)
            return
        step = (self._goal - self.command) * (CYCLE_S / self._lookahead)
        if np.abs(step).max() > MAX_SPEED * CYCLE_S:
            self.safety(PROTECTIVE_STOP)
            return
        self.velocity[:] = step / CYCLE_S
        self.command += step

    def _brake(self) -> None:
        speed = np.abs(self.velocity).max()
        scale = max(1.0 - self._deceleration * CYCLE_S / speed, 0.0) if speed > 1e-4 else 0.0
        self.velocity *= scale
        self.command += self.velocity * CYCLE_S
