"""One axis under position, velocity, acceleration and jerk limits, in discrete time.

The state is (p, v, a) with v = Δp/dt and a = Δv/dt, so the limits hold for the finite differences
of the emitted positions themselves. A state is *safe* if braking from it (``Axis.brake``) stays
within all limits until rest. Braking from a safe state gives a safe state by definition, so as
long as every emitted state is safe there is always a next one: no command sequence can drive the
axis into a corner from which some limit must be broken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MARGIN = 1e-9  # relative: limits are kept short of rounding
BISECTIONS = 12
MAX_BRAKING_STEPS = 100_000


@dataclass(frozen=True)
class AxisLimits:
    """Symmetric in velocity, acceleration and jerk; units of the axis per s, s² and s³."""

    low: float
    high: float
    velocity: float
    acceleration: float
    jerk: float


class Axis:
    """Emits positions within ``limits``, as near as possible to what is wanted.

    Args:
        limits: of this axis.
        dt: s between positions.
    """

    def __init__(self, limits: AxisLimits, dt: float) -> None:
        self.limits, self.dt = limits, dt
        self._max_v = limits.velocity * (1.0 - MARGIN)
        self._max_a = limits.acceleration * (1.0 - MARGIN)
        self._max_da = limits.jerk * dt * (1.0 - MARGIN)  # change of a per step
        self.p = self.v = self.a = 0.0

    def start(self, position: float) -> None:
        """At rest in ``position``, which must lie within the limits."""
        self.p, self.v, self.a = position, 0.0, 0.0

    def violation(self, wanted: float) -> str | None:
        """Which limit a direct step to ``wanted`` would break first, or None."""
        v = (wanted - self.p) / self.dt
        a = (v - self.v) / self.dt
        if not self.limits.low <= wanted <= self.limits.high:
            return "position"
        if abs(v) > self._max_v:
            return "velocity"
        if abs(a) > self._max_a:
            return "acceleration"
        if abs(a - self.a) > self._max_da:
            return "jerk"
        # Every limit holds now; could it still hold afterwards?
        return None if self._safe(wanted, v, a) else "position"

    def go(self, wanted: float) -> None:
        """Step exactly to ``wanted``; only after ``violation`` returned None."""
        v = (wanted - self.p) / self.dt
        self.p, self.v, self.a = wanted, v, (v - self.v) / self.dt

    def approach(self, wanted: float) -> None:
        """Step towards ``wanted`` as far as the limits allow, so as to stop there."""
        goal = min(max(wanted, self.limits.low), self.limits.high)
        brake = self.brake(self.v, self.a)
        eager = ((goal - self.p) / self.dt - self.v) / self.dt
        eager = min(max(eager, self.a - self._max_da), self.a + self._max_da)
        eager = min(max(eager, -self._max_a), self._max_a)
        # ``brake`` may be taken always; find the largest share of the way from it to ``eager``.
        best, low, high = brake, 0.0, 1.0
        share = 1.0
        for _ in range(BISECTIONS):
            candidate = brake + share * (eager - brake)
            if self._acceptable(candidate, goal):
                best, low = candidate, share
                if share == 1.0:
                    break
            else:
                high = share
            share = 0.5 * (low + high)
        self._advance(best)

    def hold(self) -> None:
        """Brake: one step of the way to rest."""
        if self.at_rest:
            self.v = self.a = 0.0
        else:
            self._advance(self.brake(self.v, self.a))

    @property
    def at_rest(self) -> bool:
        """Whether nothing but rounding moves."""
        return self._resting(self.v, self.a)

    def _resting(self, v: float, a: float) -> bool:
        tiny = MARGIN * self._max_da
        return abs(a) <= tiny and abs(v) <= tiny * self.dt

    def brake(self, v: float, a: float) -> float:
        """The next acceleration on the quickest way to v = a = 0 that does not turn round.

        In units where one jerk step changes the acceleration by 1 and the velocity by 1: braking
        with b now and b-1, b-2, ... afterwards removes the velocity T(b), see ``_ramp``. So the
        strongest braking that does not overshoot is b = T⁻¹(V), reached at one unit per step.
        """
        direction = math.copysign(1.0, v) if v != 0.0 else math.copysign(1.0, a)
        speed = abs(v) / (self._max_da * self.dt)
        braking = -direction * a / self._max_da
        wanted = min(_inverse_ramp(speed), self._max_a / self._max_da)
        braking = min(max(wanted, braking - 1.0), braking + 1.0)
        return -direction * braking * self._max_da

    def _acceptable(self, a: float, goal: float) -> bool:
        """Whether the step is safe and, where that can still be avoided, does not pass ``goal``."""
        v = self.v + a * self.dt
        end = self._braking_end(self.p + v * self.dt, v, a)
        if end is None:
            return False
        toward = math.copysign(1.0, goal - self.p)
        return toward * (goal - end) >= -MARGIN * max(1.0, abs(goal))

    def _safe(self, p: float, v: float, a: float) -> bool:
        return self._braking_end(p, v, a) is not None

    def _braking_end(self, p: float, v: float, a: float) -> float | None:
        """Where braking from (p, v, a) comes to rest, or None if a limit breaks on the way."""
        low, high, max_v = self.limits.low, self.limits.high, self._max_v * (1.0 + 0.5 * MARGIN)
        for _ in range(MAX_BRAKING_STEPS):
            if not (low <= p <= high and abs(v) <= max_v):
                return None
            if self._resting(v, a):
                return p
            a = self.brake(v, a)
            v += a * self.dt
            p += v * self.dt
        return None

    def _advance(self, a: float) -> None:
        self.v += a * self.dt
        self.a = a
        # Rounding may not push a resting axis over its bound.
        self.p = min(max(self.p + self.v * self.dt, self.limits.low), self.limits.high)


def _inverse_ramp(speed: float) -> float:
    """The b such that b + (b-1) + (b-2) + ... (all positive terms) = ``speed``.

    With n = floor(b) the sum is (n+1) b - n(n+1)/2: continuous, increasing, linear in between.
    """
    n = math.floor(0.5 * (math.sqrt(1.0 + 8.0 * speed) - 1.0))
    return (speed + 0.5 * n * (n + 1)) / (n + 1)
