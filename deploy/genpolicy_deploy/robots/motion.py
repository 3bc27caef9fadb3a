"""Who makes the next joint command: the servo, on the way home too, or the fence that stops it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.arm_config import ArmConfig
from genpolicy_deploy.robots.device import LOST_COMMANDS
from genpolicy_deploy.robots.fence import Fence
from genpolicy_deploy.robots.homing import Homing
from genpolicy_deploy.servo import Servo

Vector = NDArray[np.float64]


class Motion:
    """All joint commands of one arm, one per tick.

    Args:
        config: of the arm.
        dt: s between ticks.

    Raises:
        GenpolicyError: the model does not fit.
    """

    def __init__(self, config: ArmConfig, dt: float) -> None:
        self._config, self._dt = config, dt
        homer = Servo(replace(config, mode="joints"), dt)  # home is a pose of joints
        self._main = Servo(config, dt) if config.mode == "hand" else homer
        self._servos = (homer,) if self._main is homer else (self._main, homer)
        self._homer = homer
        self._servo = self._main  # which one moves the arm now
        self._fence = Fence(config.joints, config.limits, dt)
        self._first_step = np.array(config.limits.first_step)
        self._homing: Homing | None = None
        self._broken = False  # the servo cannot be trusted: the fence brakes
        self.engaged = False  # whether commands are sent: not before the first goal or homing
        self.command: Vector = self._fence.command  # sent last; written in place
        self._taken = self.command.copy()  # by the driver
        self._untaken = 0  # commands since then

    @property
    def at_rest(self) -> bool:
        """Whether the command does not move any more."""
        if not self.engaged:
            return True
        return self._fence.at_rest if self._broken else self._servo.at_rest

    @property
    def homing(self) -> bool:
        """Whether the arm is on its way home."""
        return self._homing is not None

    def begin(self, measured: Vector) -> bool:
        """From rest, start an episode; False when that begins with the way home.

        Args:
            measured: ``[J]`` where the joints are: a commanded arm starts where it was told to be.

        Raises:
            GenpolicyError: an arm outside its limits.
        """
        position = (self._servo.command if self.engaged else measured).copy()
        home = self._config.home is not None
        self._rest_at(self._homer if home else self._main, position)
        if home:
            self._homing = Homing(self._config, self._servo.command, self._dt)
            self.engaged = True
        return not home

    def go_home(self, measured: Vector, stale: bool) -> bool:
        """One tick of the way home, which waits while measurements are stale; True at its end.

        Raises:
            GenpolicyError: it takes too long.
        """
        homing = self._homing
        assert homing is not None
        if homing.overdue():
            worst = int(np.argmax(np.abs(measured - homing.home)))
            raise GenpolicyError(
                f"joint '{self._config.joints[worst]}' did not get home: it is at "
                f"{measured[worst]:.4g} instead of {homing.home[worst]:.4g}"
            )
        if not stale:
            self._homer.goal(homing.goal())
        arrived = homing.arrived(self._homer.command, measured, self._first_step)
        if not (arrived and self._homer.at_rest):
            return False
        self._rest_at(self._main, self._homer.command.copy())
        self._homing = None
        return True

    def _rest_at(self, servo: Servo, position: Vector) -> None:
        """From now on ``servo`` moves the arm, which rests at ``position [J]``."""
        servo.start(position)
        self._servo = servo
        self._fence.start(servo.command)
        self._taken[:], self._untaken = servo.command, 0

    def goal(self, goal: Vector, measured: Vector) -> None:
        """Pursue ``goal [A]`` of the loop.

        Args:
            goal: of all axes.
            measured: ``[J]`` where the joints are: nobody held those of an arm not yet commanded.

        Raises:
            GenpolicyError: the first goal is too far away, or the arm is outside its limits.
        """
        if not self.engaged:
            self._rest_at(self._main, measured)
        self._main.goal(goal)
        self.engaged = True

    def hold(self) -> None:
        """Brake until the next goal; the way home is given up."""
        self._homing = None
        if self.engaged:
            self._servo.hold()

    def pause(self) -> None:
        """Brake until the next goal, or the next tick of the way home."""
        if self.engaged:
            self._servo.hold()

    def stop(self) -> None:
        """Brake for good."""
        self._homing = None
        for servo in self._servos:
            servo.stop()

    def late(self) -> None:
        """After a gap in time the joints start again from rest."""
        self._servo.late()
        self._fence.start(self.command.copy())

    def sent(self, taken: bool) -> None:
        """Whether the driver took the present command.

        Where it did not several times, the joints start again from rest at what it took last.
        """
        if taken:
            self._taken[:], self._untaken = self.command, 0
            return
        self._untaken += 1
        if self._untaken > LOST_COMMANDS:
            self._servo.late(self._taken)
            self._fence.start(self._taken)

    def step(self) -> str | None:
        """Bring ``command`` forward by a tick; says what is wrong with the servo, once."""
        wrong = None
        if not self._broken:
            try:
                wrong = self._fence.refuses(self._servo.step())
            except Exception as error:  # whatever it is, the joints must come to rest
                wrong = f"{type(error).__name__}: {error}"
            self._broken = wrong is not None
        if self._broken:
            self._fence.brake()
        return wrong

    def brake(self) -> bool:
        """Without the servo: the next command on the way to rest; False when it is reached."""
        self._broken = True
        moving = self.engaged and not self._fence.at_rest
        self._fence.brake()
        return moving

    def pose(self, measured: Vector, out: Vector) -> None:
        """Of hand and gripper at the joints ``measured [J]``: see ``Servo.pose``."""
        self._main.pose(measured, out)

    def violations(self) -> dict[str, int]:
        """What the servo altered so far, by kind."""
        found = dict(self._main.violations)
        if self._homer is not self._main:
            for kind, count in self._homer.violations.items():
                found[kind] = found.get(kind, 0) + count
        return found
