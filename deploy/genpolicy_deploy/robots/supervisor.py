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
from typing import Any, Protocol

import numpy as np

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.arm_channel import Channel
from genpolicy_deploy.robots.arm_config import ArmConfig
from genpolicy_deploy.robots.arm_messages import FAULT, GOAL, HOLD, START, STATE, STOP
from genpolicy_deploy.robots.device import Device, DeviceState
from genpolicy_deploy.robots.following import Following
from genpolicy_deploy.robots.motion import Motion

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
    """One arm under the rules above.

    Args:
        config: of the arm.
        device: its driver; connected by the time of ``run``.
        channel: to the control loop.
        clock: paces it.

    Raises:
        GenpolicyError: the model does not fit.
    """

    def __init__(self, config: ArmConfig, device: Device, channel: Channel, clock: Clock) -> None:
        self._config, self._device, self._channel, self._clock = config, device, channel, clock
        self._motion = Motion(config, 1.0 / config.rate_hz)
        self._hand_axes = np.zeros(6 + (config.gripper is not None))
        self._following: Following | None = None  # since the first command
        self._effort_limits = np.array(config.limits.effort)
        self._silence_ns = int(config.silence_s * 1e9)
        self._starting: int | None = None  # the episode that is to begin
        self._started = self._holding = self._stale = False
        self._readable = True
        self._known: set[str] = set()  # violations that the loop has heard of
        self.reason: str | None = None  # why it stops
        self.signalled = ""  # set by a signal handler: stop, because of this
        self._deadline_ns = 0  # of braking
        self._goal_seq, self._ignored = 0, 0
        self._velocity = np.zeros(len(config.joints))

    def begin(self, state: DeviceState) -> None:
        """The arm is connected, and this is the first measurement."""
        self._device_state = state
        self._measured = state.position.copy()
        self._seq = state.seq
        self._measured_ns = self._last_ns = self._heard_ns = self._now = time.monotonic_ns()

    def run(self) -> None:
        """Serve until a rule stops the arm; it rests then, as far as that can be brought about."""
        try:
            while not self.ended:
                self.tick()
        except Exception as error:  # in the rules themselves
            self.reason = _sentence(error)
            while self._motion.brake():
                self._clock.wait()
                self._device.write(self._motion.command)

    @property
    def ended(self) -> bool:
        """Whether a rule has stopped the arm and it has come to rest, or has had its time to."""
        if self.reason is None:
            return False
        return self._motion.at_rest or self._now > self._deadline_ns

    def tick(self) -> None:
        """One exchange with the loop and with the arm."""
        now = self._now = self._clock.wait()
        gap_ns, self._last_ns = now - self._last_ns, now
        if self._motion.engaged and gap_ns > LATE_PERIODS * self._clock.period_ns:
            self._fault(f"the arm's process did not run for {gap_ns / 1e6:.0f} ms")
            self._motion.late()
        self._listen()
        self._read()
        self._watch()
        try:
            self._begin_episode()
        except GenpolicyError as error:
            self.stop(str(error))
        if self._motion.engaged:
            self._move()
        self._report()

    def stop(self, reason: str) -> None:
        """Brake, then end. The first reason counts."""
        if self.reason is not None:
            return
        self.reason = reason
        self._starting = None
        self._motion.stop()
        self._deadline_ns = self._now + int((self._config.braking_s() + BRAKING_SLACK_S) * 1e9)

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
            if kind in (HOLD, START):
                self._holding = True
                self._motion.hold()
                self._starting = int(order["episode"]) if kind == START else None
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
        busy = self._motion.homing or self._starting is not None
        if self.reason is not None or busy or self._stale or not self._started:
            return
        try:
            self._motion.goal(goal["goal"], self._measured)
        except Exception as error:  # whatever it is, the arm must come to rest
            self.stop(_sentence(error))
            return
        self._goal_seq = int(goal["seq"])
        self._holding = False

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
            self._holding = True
            self._motion.pause()
        self._stale = stale
        silent_ns = self._now - self._heard_ns
        pursuing = self._motion.engaged and not self._holding and not self._motion.homing
        if pursuing and silent_ns > self._silence_ns:
            self._fault(f"no goal for {silent_ns / 1e6:.0f} ms: braking")
            self._holding = True
            self._motion.hold()
        if len(self._effort_limits):
            strained = ~(np.abs(self._device_state.effort) <= self._effort_limits)
            if strained.any():  # NaN counts, too
                joint = self._config.joints[int(np.argmax(strained))]
                self.stop(f"effort of joint '{joint}' is beyond its limit")
        if self._following is not None and not stale:
            astray = self._following.astray(self._measured)
            if astray is not None:
                self.stop(astray)

    def _begin_episode(self) -> None:
        """Where one is to begin: wait for rest, then for the way home."""
        if self._starting is None:
            return
        if self._motion.homing:
            ready = self._motion.go_home(self._measured, self._stale)
        else:
            resting = self._motion.at_rest and not self._stale
            ready = resting and self._motion.begin(self._measured)
        if ready:
            self._channel.state["episode"] = self._starting
            self._starting, self._started, self._holding = None, True, True

    def _move(self) -> None:
        wrong = self._motion.step()
        if wrong is not None:
            self.stop(wrong)
        if self._following is None:
            self._following = Following(self._config)
            self._following.start(self._motion.command)
        self._following.add(self._motion.command)
        try:
            self._motion.sent(self._device.write(self._motion.command))
        except Exception as error:  # an SDK may raise anything
            self.stop(_sentence(error))

    def _report(self) -> None:
        state, motion = self._channel.state, self._motion
        state["kind"], state["seq"], state["t_ns"] = STATE, self._seq, self._measured_ns
        state["goal_seq"], state["ignored"] = self._goal_seq, self._ignored
        state["holding"] = self._holding or not motion.engaged
        state["joints"], state["velocity"] = self._measured, self._velocity
        state["effort"] = self._device_state.effort
        state["command"] = motion.command if motion.engaged else self._measured
        if self._config.hand:
            motion.pose(self._measured, self._hand_axes)
            state["hand"] = self._hand_axes[:6]
        state["position"] = self._hand_axes if self._config.mode == "hand" else self._measured
        violations = motion.violations()
        state["blocked"] = sum(violations.values())
        for kind in violations:
            if kind not in self._known:
                self._known.add(kind)
                self._fault(f"the joint envelope altered a command: {kind}")
        self._channel.publish()

    def _fault(self, sentence: str) -> None:
        self._channel.say(FAULT, sentence)


def _sentence(error: Exception) -> str:
    if isinstance(error, GenpolicyError):
        return str(error)
    return f"{type(error).__name__}: {error}"
