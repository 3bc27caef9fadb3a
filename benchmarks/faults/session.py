"""Injects faults into one arm's runs, one after the other, and judges each."""

from __future__ import annotations

import itertools
import random
import signal
import time
import traceback
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from faults import judge
from faults.kinds import Kind
from faults.rig import ENDED_S, STARTED_S, Rig, Run

MOVING_S = 12.0  # within which an arm must move again, or its run end
REACTION_S = 0.2
UNSAVED_S = 1.0  # of the log may be lost with the process that writes it
PER_RUN = 15  # injections, then the run is ended in good order and another one begins
_CODES = (0, 3, 130, -signal.SIGKILL)  # end, fault, Ctrl-C; and what we did to it


@dataclass
class Injection:
    """One fault and what came of it."""

    driver: str
    kind: Kind
    start: float  # CLOCK_MONOTONIC, s
    end: float
    ended: bool = False  # the run
    escapes: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # in the log
    surprises: list[str] = field(default_factory=list)
    log: str = ""  # which flight log tells of it
    reaction_s: float | None = None  # how long the goals went on changing, where they must rest


class Session:
    """All injections into one arm.

    Args:
        driver: one of ``rig.DRIVERS``.
        kinds: in this order.
        folder: for files.
        number: of the rig, see there.
        rng: decides the moments.
        until: CLOCK_MONOTONIC, s, after which no other injection is begun.
    """

    def __init__(
        self,
        driver: str,
        kinds: Iterable[Kind],
        folder: Path,
        number: int,
        rng: random.Random,
        until: float,
    ) -> None:
        self.driver, self._queue, self._rng = driver, deque(kinds), rng
        self._folder, self._number, self._until = folder, number, until
        self.done: list[Injection] = []
        self.trouble = ""

    def execute(self) -> None:
        """Do it; ``trouble`` says why it broke off, if it did: what was done before counts."""
        try:
            self._execute()
        except Exception:  # of ours: the other sessions go on
            self.trouble = f"{self.driver}: {traceback.format_exc()}"

    def _execute(self) -> None:
        with Rig(self.driver, self._folder, self._number) as rig:
            failures = 0
            while self._going:
                run = rig.run()
                if run.wait_moving(STARTED_S):
                    failures = 0
                    self._use(run)
                else:
                    said = run.said()
                    run.kill()
                    rig.replace_peer()
                    failures += 1
                    if failures > 1:
                        self.trouble = f"{self.driver}: no run begins: {said}"
                        return

    @property
    def _going(self) -> bool:
        return bool(self._queue) and time.monotonic() < self._until

    def _use(self, run: Run) -> None:
        """Inject until the run has ended."""
        injections: list[Injection] = []
        spent = repair = False
        while self._going and not spent:
            kind = self._queue.popleft()
            injection = self._inject(run, kind)
            injections.append(injection)
            repair = kind.repair
            spent = injection.ended or kind.cut or kind.repair or bool(injection.hangs)
            spent |= len(injections) >= PER_RUN
        if run.ended is None:
            run.process.send_signal(signal.SIGTERM)
            if not run.wait_ended(ENDED_S):
                run.kill()
                for injection in injections[-1:]:
                    injection.hangs.append("does not end by SIGTERM")
        self._finish(run, injections)
        run.rig.sensor.well()
        if repair:
            run.rig.replace_peer()

    def _inject(self, run: Run, kind: Kind) -> Injection:
        time.sleep(self._rng.uniform(0.05, 0.6))
        run.rig.look()
        start = time.monotonic()
        kind.act(run)
        injection = Injection(self.driver, kind, start, time.monotonic())
        if kind.ends:
            if not run.wait_ended(ENDED_S):
                injection.hangs.append(f"the run goes on {ENDED_S:g} s later")
        elif not run.wait_moving(MOVING_S) and run.ended is None:
            injection.hangs.append(f"neither moves nor ends within {MOVING_S:g} s")
        injection.ended = run.ended is not None
        if injection.ended:
            self._judge_end(run, injection)
        return injection

    def _judge_end(self, run: Run, injection: Injection) -> None:
        kind = injection.kind
        if kind.ends is False:
            injection.surprises.append("the run ended")
        if run.ended not in _CODES:
            injection.surprises.append(f"exit code {run.ended}: {run.said()[-300:]}")
        time.sleep(0.3)  # what still moves now moves without anybody
        run.rig.look()

    def _finish(self, run: Run, injections: list[Injection]) -> None:
        rig = run.rig
        rig.look()
        goals = judge.changes(rig.goals) if rig.driver == "mujoco" else rig.goals
        log = judge.read(run.log)
        last = injections[-1].start if len(injections) > 1 else 0.0
        if log and judge.tells(log, "^state STOP", 0.0, last):
            self._queue.append(injections.pop().kind)  # came too late, and has another turn
            injections[-1].ended = True
            self._judge_end(run, injections[-1])
        stalled = judge.stalls(log) if log else []
        damaged = [(i.start - 0.1, i.end + 1.0) for i in injections if i.kind.loses]
        bounds = [i.start - 0.05 for i in injections[1:]] + [float("inf")] * bool(injections)
        since = 0.0
        # What happened right before the recorder itself was killed need not be in its file.
        saved = [
            not (after.kind.cut and after.start - i.end < UNSAVED_S)
            for i, after in itertools.pairwise(injections)
        ] + [True] * bool(injections)
        for injection, until, told in zip(injections, bounds, saved, strict=True):
            own = [goal for goal in goals if since <= goal[0] < until]
            since = until
            injection.log = f"{run.log.parent.name}/{run.log.name}"
            injection.escapes += judge.escapes(
                own, rig.limits, rig.period_s, rig.resolution, damaged, stalled
            )
            if injection.escapes:
                np.save(run.log.with_suffix(".npy"), [[t, *q] for t, q in goals])
            if injection.kind.rule_s is not None and injection.ended:
                injection.reaction_s = judge.rested_s(own, injection.start)
                allowed = injection.kind.rule_s + REACTION_S + rig.braking_s
                if injection.reaction_s > allowed:
                    late = injection.reaction_s
                    injection.hangs.append(f"moved for {late:.2f} s, allowed {allowed:.2f}")
            injection.missing += self._missing(log, injection, until, told)
        self.done += injections

    def _missing(
        self, log: judge.FlightLog | None, injection: Injection, until: float, told: bool
    ) -> list[str]:
        kind = injection.kind
        if log is None:
            return ["the log cannot be read"]
        missing = []
        if kind.cut:
            last = int(log.ticks["t_ns"][-1]) / 1e9 if len(log.ticks) else 0.0
            if last < injection.start - 1.0:
                missing.append(f"the log ends {injection.start - last:.1f} s too early")
        elif injection.ended and not log.complete:
            missing.append("the log is not whole")
        if told and kind.event and not judge.tells(log, kind.event, injection.start, until):
            missing.append(f"no event '{kind.event}'")
        return missing
