"""The rules by which an arm's process moves the arm, once per tick of its own clock.

    orders of the loop -> measurement -> rules -> servo -> fence -> driver -> state to the loop

The rules, mildest first:

- brake, and go on with the next goal: ``hold``; no goal for ``silence_s``; no measurement for
  ``silence_s``; a tick that came late (the servo starts again from rest);
- brake, then end: ``stop``, by order or pipe; the loop is gone; a signal; no measurement for a
  second; effort beyond its limit; a first goal too far away; an error of driver or servo; a command
  that the fence refuses.

Joints brake inside their own limits at once. Nothing is written before the first goal (or homing),
so an arm that nobody commands is not touched.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.arm_channel import Channel
from genpolicy_deploy.robots.arm_config import ArmConfig
from genpolicy_deploy.robots.arm_messages import FAULT, GOAL, HOLD, START, STATE, STOP
from genpolicy_deploy.robots.device import Device, DeviceState
from genpolicy_deploy.robots.fence import Fence
from genpolicy_deploy.robots.homing import Homing
from genpolicy_deploy.servo import Servo

STALE_STOP_S = 1.0
LATE_PERIODS = 2.5  # since the last tick: more is a gap
BRAKING_SLACK_S = 0.5  # beyond what braking by the limits takes


class Clock(Protocol):
    """What paces the process: ``realtime.Ticker``."""

    period_ns: int

    def wait(self) -> int:
        """Sleep until the next tick; the time then, monotonic ns."""
        ...


class Supervisor:
    """One arm, connected, under the rules above.

    Args:
        config: of the arm.
        device: its driver, connected.
        channel: to the control loop.
        state: the first measurement.
        clock: paces it.
    """

    def __init__(
        self,
        config: ArmConfig,
        device: Device,
        channel: Channel,
        state: DeviceState,
        clock: Clock,
    ) -> None:
        self._config, self._device, self._channel = config, device, channel
        self._device_state, self._clock = state, clock
        self._dt = 1.0 / config.rate_hz
        joints_mode = Servo(replace(config, mode="joints"), self._dt)
        hand_mode = Servo(replace(config, mode="hand"), self._dt) if config.hand else None
        self._hand = hand_mode
        self._main = hand_mode if config.mode == "hand" and hand_mode else joints_mode
        self._homer = joints_mode
        self._servo = self._main  # which one moves the arm now
        self._fence = Fence(config.joints, config.limits, self._dt)
        self._first_step = np.array(config.limits.first_step)
        self._effort_limits = np.array(config.limits.effort)
        self._silence_ns = int(config.silence_s * 1e9)
        self._homing: Homing | None = None
        self._starting: int | None = None  # the episode that is to begin
        self._engaged = self._started = self._holding = self._stale = False
        self._broken = False  # the servo cannot be trusted: the fence brakes
        self._readable = True
        self._servos = (self._main,) if self._main is self._homer else (self._main, self._homer)
        self._known: set[str] = set()  # violations that the loop has heard of
        self.reason: str | None = None  # why it stops
        self.signalled = ""  # set by a signal handler: stop, because of this
        self._deadline_ns = 0  # of braking
        self._goal_seq, self._ignored = 0, 0
        self._hand_axes = np.zeros(6 + (config.gripper is not None))
        self._velocity = np.zeros(len(config.joints))
        self._measured = state.position.copy()
        self._seq = state.seq
        self._measured_ns = self._last_ns = self._heard_ns = self._now = time.monotonic_ns()

    def run(self) -> None:
        """Serve until a rule stops the arm; it rests then, as far as that can be brought about."""
        try:
            while self.reason is None or self._moving():
                self.tick()
        except Exception as error:  # an error in the rules themselves
            self.reason = _sentence(error)
            while self._engaged and not self._fence.at_rest:
                self._clock.wait()
                self._device.write(self._fence.brake())

    def tick(self) -> None:
        """One exchange with the loop and with the arm."""
        now = self._now = self._clock.wait()
        if self._engaged and now - self._last_ns > LATE_PERIODS * self._clock.period_ns:
            self._fault(
                f"a tick of the arm's process came {(now - self._last_ns) / 1e6:.0f} ms late"
            )
            self._servo.late()
        self._last_ns = now
        self._listen()
        self._read()
        self._watch()
        if self._starting is not None and self._homing is None and not self._stale:
            self._begin()
        if self._engaged:
            self._move()
        self._report()

    def stop(self, reason: str) -> None:
        """Brake, then end. The first reason counts."""
        if self.reason is not None:
            return
        self.reason = reason
        self._homing = self._starting = None
        self._main.stop()
        self._homer.stop()
        limit = self._config.braking_s() + BRAKING_SLACK_S
        self._deadline_ns = self._now + int(limit * 1e9)

    def _moving(self) -> bool:
        if not self._engaged or self._now > self._deadline_ns:
            return False
        return not (self._fence.at_rest if self._broken else self._servo.at_rest)

    def _listen(self) -> None:
        """Carry out what the loop says; of several goals the newest counts."""
        goal = None
        while (order := self._channel.receive()) is not None:
            kind = bytes(order["kind"])
            if kind == GOAL:
                goal = order.copy()
                continue
            goal = None
            self._heard_ns = self._now
            if kind == HOLD:
                self._homing = self._starting = None
                self._hold()
            elif kind == START:
                self._homing = None
                self._hold()
                self._starting = int(order["episode"])
            elif kind == STOP:
                self.stop("asked to")
        if self._channel.stop_asked():
            self.stop("asked to")
        if self._channel.closed:
            self.stop("the control loop is gone")
        if self.signalled:
            self.stop(f"the arm's process received {self.signalled}")
        if goal is not None:
            self._accept(goal)

    def _accept(self, goal: Any) -> None:
        """Pursue a goal that is fresh, if the arm is in a state to."""
        if self._now - int(goal["t_ns"]) > self._silence_ns:
            self._ignored += 1
            return
        self._heard_ns = self._now
        busy = self._homing is not None or self._starting is not None
        if self.reason is not None or busy or self._stale or not self._started:
            return
        try:
            self._main.goal(goal["goal"])
        except Exception as error:  # whatever it is, the arm must come to rest
            self.stop(_sentence(error))
            return
        self._goal_seq = int(goal["seq"])
        self._engaged, self._holding = True, False

    def _hold(self) -> None:
        self._holding = True
        if self._engaged:
            self._servo.hold()

    def _read(self) -> None:
        """Take the newest measurement, if it is one."""
        if not self._readable:
            return
        state = self._device_state
        try:
            self._device.read(state)
        except Exception as error:  # an SDK may raise anything
            self._readable = False
            self.stop(_sentence(error))
        for fault in state.faults:
            self._fault(fault)
        state.faults.clear()
        if state.seq == self._seq:
            return
        self._seq = state.seq
        if state.position.shape != self._measured.shape or not np.isfinite(state.position).all():
            self._fault("the measured joints are not finite numbers, one per joint")
            return
        t_ns = min(state.t_ns, self._now)  # no clock of a driver's makes a measurement younger
        if (elapsed := t_ns - self._measured_ns) > 0:
            np.subtract(state.position, self._measured, out=self._velocity)
            self._velocity *= 1e9 / elapsed
        self._measured[:] = state.position
        self._measured_ns = t_ns

    def _watch(self) -> None:
        """The rules on ages and effort."""
        age_ns = self._now - self._measured_ns
        if age_ns > STALE_STOP_S * 1e9:
            self.stop(f"no measurement of the arm for {age_ns / 1e9:.2f} s")
        stale = age_ns > self._silence_ns
        if stale and not self._stale:
            self._fault(f"no measurement of the arm for {age_ns / 1e6:.0f} ms: braking")
            self._hold()
        self._stale = stale
        silent_ns = self._now - self._heard_ns
        pursuing = self._engaged and not self._holding and self._homing is None
        if pursuing and silent_ns > self._silence_ns:
            self._fault(f"no goal for {silent_ns / 1e6:.0f} ms: braking")
            self._hold()
        if len(self._effort_limits):
            strained = ~(np.abs(self._device_state.effort) <= self._effort_limits)
            if strained.any():  # NaN counts, too
                joint = self._config.joints[int(np.argmax(strained))]
                self.stop(f"effort of joint '{joint}' is beyond its limit")

    def _begin(self) -> None:
        """Start an episode as soon as the arm rests: go home first, where there is one."""
        if self._engaged and not self._servo.at_rest:
            return
        position = (self._servo.command if self._engaged else self._measured).copy()
        try:
            if self._config.home is not None:
                self._servo = self._homer
                self._homer.start(position)
                self._homing = Homing(self._config, self._homer.command, self._dt)
                self._engaged, self._holding = True, False
            else:
                self._servo = self._main
                self._main.start(position)
                self._arrived()
        except GenpolicyError as error:
            self.stop(str(error))
            return
        self._fence.start(self._servo.command)

    def _arrived(self) -> None:
        """The episode begins; goals are taken from now on."""
        self._channel.state["episode"] = self._starting
        self._starting, self._started, self._holding = None, True, True

    def _go_home(self) -> None:
        homing = self._homing
        if homing is None:
            return
        try:
            if homing.overdue():
                worst = int(np.argmax(np.abs(self._measured - homing.home)))
                raise GenpolicyError(
                    f"joint '{self._config.joints[worst]}' did not get home: it is at "
                    f"{self._measured[worst]:.4g} instead of {homing.home[worst]:.4g}"
                )
            if not self._stale:
                self._homer.goal(homing.goal())
            if homing.arrived(self._homer.command, self._measured, self._first_step):
                self._main.start(self._homer.command.copy())
                self._servo, self._homing = self._main, None
                self._arrived()
        except GenpolicyError as error:
            self.stop(str(error))

    def _move(self) -> None:
        """One joint command, past the fence."""
        self._go_home()
        if not self._broken:
            try:
                wrong = self._fence.refuses(self._servo.step())
            except Exception as error:  # whatever it is, the arm must come to rest
                wrong = _sentence(error)
            if wrong is not None:
                self._broken = True
                self.stop(wrong)
        command = self._fence.brake() if self._broken else self._fence.command
        try:
            self._device.write(command)
        except Exception as error:  # an SDK may raise anything
            self.stop(_sentence(error))

    def _report(self) -> None:
        state = self._channel.state
        state["kind"], state["seq"], state["t_ns"] = STATE, self._seq, self._measured_ns
        state["goal_seq"], state["ignored"] = self._goal_seq, self._ignored
        state["holding"] = self._holding or not self._engaged
        state["joints"], state["velocity"] = self._measured, self._velocity
        state["effort"] = self._device_state.effort
        state["command"] = self._fence.command if self._engaged else self._measured
        if self._hand is not None:
            self._hand.pose(self._measured, self._hand_axes)
            state["hand"] = self._hand_axes[:6]
        state["position"] = self._hand_axes if self._config.mode == "hand" else self._measured
        state["blocked"] = self._count_violations()
        self._channel.publish()

    def _count_violations(self) -> int:
        """All so far; the loop hears of the first of each kind."""
        total = 0
        for servo in self._servos:
            for kind, count in servo.violations.items():
                total += count
                if kind not in self._known:
                    self._known.add(kind)
                    self._fault(f"the joint envelope altered a command: {kind}")
        return total

    def _fault(self, sentence: str) -> None:
        self._channel.say(FAULT, sentence)


def _sentence(error: Exception) -> str:
    if isinstance(error, GenpolicyError):
        return str(error)
    return f"{type(error).__name__}: {error}"
