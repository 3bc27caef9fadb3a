"""The control loop: one tick reads, watches, decides, commands and records. It never waits.

Once per control step an action becomes an absolute target, which the envelope turns into a
command; at every tick the robot is sent the present command, which also is its heartbeat. What
goes wrong ends in HOLD (brake inside the limits, go on when the cause is gone) or in STOP (brake,
then the robot's own stop; final). A robot that brakes by itself (an arm, in its joints) does so at
once, and goes on from where it came to rest.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError, PolicySpec
from genpolicy_deploy.actions import action_mode
from genpolicy_deploy.contract import Contract
from genpolicy_deploy.envelope import Envelope
from genpolicy_deploy.estop import EmergencyStop
from genpolicy_deploy.inference import Inference
from genpolicy_deploy.leaders.base import Leader
from genpolicy_deploy.link import LinkClosedError
from genpolicy_deploy.no_policy import NoPolicy
from genpolicy_deploy.player import ChunkPlayer
from genpolicy_deploy.realtime import Ticker
from genpolicy_deploy.recorder import Recorder
from genpolicy_deploy.robots.base import Robot, RobotState, check_fits
from genpolicy_deploy.run_log import RunLog
from genpolicy_deploy.states import State, StateMachine
from genpolicy_deploy.watchdog import Verdict, Watchdog

BRAKING_LIMIT_S = 2.0  # longest controlled stop before the robot's own stop takes over


class FaultError(GenpolicyError):
    """The robot was stopped because something failed."""


@dataclass(frozen=True)
class Episode:
    """How one episode ended."""

    seed: int
    steps: int
    success: bool
    complete: bool  # by success, the number of steps or a person's verdict: not broken off


@dataclass(frozen=True)
class Policy:
    """A controller at work: its process, started, and how its chunks follow each other."""

    contract: Contract
    inference: Inference
    handover: str = "sync"  # see ``ChunkPlayer``


class ControlLoop:
    """Runs episodes of one controller on one connected robot.

    Setting ``cancelled`` (a signal handler may) ends the run by a controlled stop.

    Args:
        spec: of the controller.
        robot: connected.
        policy: None where only a person acts.
        recorder: the flight log, if any.
        watchdog: thresholds.
        estop: asked in every tick.
        leader: connected; a person who may act instead of the policy.

    Raises:
        GenpolicyError: controller and robot do not fit together.
    """

    def __init__(
        self,
        spec: PolicySpec,
        robot: Robot,
        policy: Policy | None,
        recorder: Recorder | None = None,
        watchdog: Watchdog | None = None,
        estop: EmergencyStop | None = None,
        leader: Leader | None = None,
    ) -> None:
        task = spec.task
        check_fits(task, robot.spec)
        self.watchdog = watchdog or Watchdog()
        self.ticker = Ticker(robot.spec.rate_hz)
        self.envelope = Envelope(
            robot.spec, 1.0 / task.control_hz, lambda text: self._event("limit", text)
        )
        self._log = RunLog(recorder)
        self.events = self._log.events  # how many of each kind
        self.machine = StateMachine(self._log.state)
        self.cancelled = False
        self._task, self._robot = task, robot
        self._inference = policy.inference if policy else None
        self._estop = estop or EmergencyStop()
        self._mode = action_mode(task)
        if len(self._mode.axes) != len(robot.spec.axes):
            raise GenpolicyError(
                f"the controller commands the axes {', '.join(self._mode.axes)}; the robot "
                f"'{robot.spec.name}' has {', '.join(robot.spec.axes)}"
            )
        self._ticks_per_step = round(robot.spec.rate_hz / task.control_hz)
        self._leader, self._steered = leader, False  # a person acts
        max_age_ns = int(self.watchdog.chunk_age * 1e9)
        self._player = (
            ChunkPlayer(policy.contract, policy.inference, max_age_ns, self._event, policy.handover)
            if policy
            else NoPolicy()
        )
        self._sizes = {f.name: (f.dim,) for f in task.observations}
        self._target = np.zeros(len(robot.spec.axes))
        self._measured = np.zeros(len(robot.spec.axes))
        self._state = RobotState(self._measured, {}, np.zeros(0))  # until the first is read
        self._episode = -1
        self._engaged = False  # whether this episode has commanded anything
        self._now = time.monotonic_ns()

    @property
    def blocked(self) -> int:
        """Commands that an envelope altered: the loop's own, or that of the arm's joints."""
        return self.envelope.blocked + self._state.blocked

    def warm_up(self) -> None:
        """Wait until the policy answers."""
        self.machine.to(State.WARMUP)
        if self._inference is not None:
            self._inference.wait_ready()

    def run_episode(self, seed: int, max_steps: int, until_ns: float = math.inf) -> Episode:
        """Reset the robot and run until success, ``max_steps``, ``until_ns`` or cancellation.

        Raises:
            FaultError: something failed; the robot has been stopped.
        """
        try:
            self._start(seed, max_steps)
            while not (self._finished or self.cancelled or self._now >= until_ns):
                self._tick()
        except FaultError:
            raise
        except GenpolicyError as error:
            if isinstance(error, LinkClosedError):
                self._event("process_died", str(error))
            self._stop(str(error))
        except Exception as error:  # in the program: the log has to say why the robot stopped
            self.halt(f"{type(error).__name__}: {error}")
            raise
        if self.cancelled:
            self.halt("cancelled")
        return Episode(seed, self._step, self._success, self._finished)

    def halt(self, reason: str) -> None:
        """Controlled stop: brake inside the limits, then the robot's own stop. Final."""
        if self.machine.state is State.STOP:
            return
        if self.machine.state in (State.RAMP, State.RUN):
            self.machine.to(State.HOLD, reason)
        try:
            self._brake()
        except GenpolicyError as error:
            kind = "process_died" if isinstance(error, LinkClosedError) else "robot"
            self._event(kind, str(error))
        finally:
            self.envelope.stop()
            self.machine.to(State.STOP, reason)
            self._robot.stop()
            self._now = time.monotonic_ns()
            self._hear(self._state)  # what it said while it braked

    def _stop(self, reason: str) -> None:
        self.halt(reason)
        raise FaultError(f"stopped: {reason}")

    def _brake(self) -> None:
        """Tick on in HOLD until the command rests. Needs no measurement and no policy."""
        deadline = time.monotonic_ns() + int(BRAKING_LIMIT_S * 1e9)
        while self._engaged and not self.envelope.at_rest and self._now < deadline:
            if self._robot.spec.brakes_itself:
                return  # its stop does
            self._now = self.ticker.wait()
            if self.ticker.index >= self._due:
                self._due = self.ticker.index + self._ticks_per_step
                self.envelope.hold()
            self._robot.hold(self.envelope.command)
            self._record()

    def _start(self, seed: int, max_steps: int) -> None:
        self._episode += 1
        self._step, self._success, self._usable = 0, False, False
        self._engaged = self._observed = self._finished = self._judged = False
        self._max_steps = max_steps
        self.machine.to(State.RAMP, f"episode {self._episode}, seed {seed}")
        self._seed = seed
        self._robot.reset(seed, self._stop_wanted)
        state = self._state = self._robot.read()
        self.envelope.start(state.position)
        self._measured[:] = state.position
        self._seq = -1
        self._measured_ns = time.monotonic_ns()
        self._player.start(seed)
        if self._leader is not None:
            self._leader.begin()
            self._steered = False
        self.ticker.start()
        self._due = 0

    def _stop_wanted(self) -> bool:
        return self.cancelled or self._estop.poll() is not None

    def _tick(self) -> None:
        missed = self.ticker.missed
        self._now = self.ticker.wait()
        if self._estop.poll() is not None:
            self._stop(f"emergency stop by {self._estop.reason}")
        late_s = (self.ticker.missed - missed) * self.ticker.period_ns / 1e9
        if late_s > self.watchdog.overrun:
            self._event("overrun", f"{1e3 * late_s:.0f} ms")
        state = self._state = self._robot.read()
        self._take(state)
        self._poll()
        self._listen()
        self._watch()
        if self.ticker.index >= self._due:
            self._decide(state)
        if self._engaged:
            send = self._robot.hold if self.machine.state is State.HOLD else self._robot.write
            send(self.envelope.command)
        self._record()

    def _take(self, state: RobotState) -> None:
        """Accept a new measurement if it can be used."""
        self._hear(state)
        if state.seq == self._seq:
            return
        self._seq = state.seq
        usable = self._usable_state(state)
        if self._usable and not usable:
            self._event("bad_measurement", "not finite or of another shape")
        self._usable = usable
        if usable:
            self._measured[:] = state.position
            self._measured_ns = state.t_ns
            self._success = state.success
            axis = self.envelope.effort_exceeded(state.effort)
            if axis is not None:
                self._stop(f"effort of axis '{axis}' is beyond its limit")

    def _hear(self, state: RobotState) -> None:
        for fault in state.faults:
            self._event("robot", fault)
        state.faults.clear()

    def _usable_state(self, state: RobotState) -> bool:
        if state.position.shape != self._measured.shape or not np.isfinite(state.position).all():
            return False
        for name, shape in self._sizes.items():
            value = state.observation.get(name)
            if value is None or value.shape != shape or not np.isfinite(value).all():
                return False
        return True

    def _poll(self) -> None:
        reply = self._player.poll(self._now)
        if reply is not None and self._inference is not None:
            request = self._inference.last_request
            self._log.chunk(self._now, self._episode, self._step, reply, request)

    def _listen(self) -> None:
        """Whether a person steers. When that changes, what the policy plans is void."""
        if self._leader is None:
            return
        self._leader.poll(self._now)
        if self._step == 0 and not (self._leader.steers or self._leader.quits):
            self._leader.verdict = None  # of an episode in which nothing has happened yet
        if self._leader.steers != self._steered:
            self._steered = self._leader.steers
            self._player.abandon()
            self._event("intervention", "start" if self._steered else "end")

    def _watch(self) -> None:
        age = (self._now - self._measured_ns) / 1e9
        if age > self.watchdog.measurement_warn:
            self._log.count("measurement_late")
        verdict, reason = self.watchdog.judge(age, self._player.waiting_s(self._now))
        if verdict is Verdict.STOP:
            self._stop(reason)
        if verdict is Verdict.HOLD:
            if self.machine.state is not State.HOLD:
                self._event("hold", reason)
            self.machine.to(State.HOLD, reason)
            self._player.drop()  # what was planned before the hold is void
            if age > self.watchdog.measurement_hold:  # and what is being planned, too
                self._player.void(self._now)
        elif self.machine.state is State.HOLD:
            if self._robot.spec.brakes_itself and self._engaged:
                self.envelope.resume(self._measured)  # where it came to rest
                self._engaged = False
            self.machine.to(State.RUN if self._engaged else State.RAMP, "recovered")

    def _decide(self, state: RobotState) -> None:
        """A control step is due: finish, ask for a chunk, or act; in HOLD, brake and wait."""
        if self.machine.state is State.HOLD:
            if self._engaged:
                self.envelope.hold()
            self._due = self.ticker.index + self._ticks_per_step
            fresh = self._now - self._measured_ns <= self.watchdog.measurement_hold * 1e9
            if self._usable and fresh and self._player.waiting_s(self._now) > 0.0:
                self._ask(state)
            return
        if not self._usable:
            return  # still due: the step is taken when there is something to take it from
        leader = self._leader
        if leader is not None and leader.verdict is not None and (self._step or leader.quits):
            self._success, self._judged = leader.verdict, True
        if self._success or self._judged or self._step >= self._max_steps:
            self._finished = True  # success counts at control steps only, as in training
            self._log.observe(state.observation)
            self._record_step(None)
            return
        if not self._observed:
            self._player.observe(state.observation)
            self._log.observe(state.observation)
            self._observed = True
        if self._leader is not None and self._steered:
            self._act(self._leader.action(self.envelope.command))
            return
        if self._player.due:
            self._ask(state)
        if not self._player.empty:
            self._act(self._player.next_action())

    def _ask(self, state: RobotState) -> None:
        if not self._player.asking and self._player.waiting_s(self._now) > 0.0:  # asked in vain
            self._player.observe(state.observation, again=True)
            self._log.observe(state.observation)
        self._player.ask(self._now, state.t_ns)

    def _act(self, action: NDArray[np.float32]) -> None:
        self._record_step(action)
        self._mode.target(action, self._measured, self.envelope.command, self._target)
        self.envelope.apply(self._target, self._measured)
        self._engaged = True
        self.machine.to(State.RUN)
        self._step += 1
        self._observed = False
        self._due = self.ticker.index + self._ticks_per_step

    def _event(self, kind: str, text: str) -> None:
        self._log.event(self._now, kind, text)

    def _record(self) -> None:
        state, envelope = self._state, self.envelope
        self._log.tick(
            self._now,
            self.ticker.ticks,
            (self._measured, envelope.command, state.joints, state.joint_command),
            (self._episode, self._step, self.blocked),
            self.ticker.last_lateness_us,
            (self._now - self._measured_ns) / 1e3,
            self.machine.state,
            self._steered,
        )

    def _record_step(self, action: NDArray[np.float32] | None) -> None:
        """One control step; without an action, the end of the episode."""
        place = (self._seed, self._episode, self._step)
        self._log.step(self._now, place, action, self._success, self._steered)
