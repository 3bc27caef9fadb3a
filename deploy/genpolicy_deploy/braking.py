"""One axis under position, velocity, acceleration and jerk limits, in discrete time.

The state is (p, v, a) with v = Δp/dt and a = Δv/dt, so the limits hold for the finite differences
of the emitted positions themselves. A state is *safe* if braking from it (``Axis.brake``) stays
within all limits until rest. Braking from a safe state gives a safe state by definition, so as
long as every emitted state is safe there is always a next one: no command sequence can drive the
axis into a corner from which some limit must be broken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genpolicy_deploy.robots.base import Limits

MARGIN = 1e-9  # relative: limits are kept short of rounding
BISECTIONS = 12
TOUCHING = 1e-9  # jerk steps: less is rounding


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
        self._near = 1e-3 * self._max_da * dt * dt
        self.p = self.v = self.a = 0.0
        self._late_for: float | None = None  # what was wanted, while it could not be reached

    def start(self, position: float) -> None:
        """At rest in ``position``, which must lie within the limits."""
        self.p, self.v, self.a = position, 0.0, 0.0
        self._late_for = None

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
        if not self._safe(wanted, v, a):
            return "position"
        # Who catches up with a target that stands must be able to stay there.
        passes = self._late_for == wanted and abs(self._rest(wanted, v, a) - wanted) > self._near
        return "acceleration" if passes else None

    def go(self, wanted: float) -> None:
        """Step exactly to ``wanted``; only after ``violation`` returned None."""
        v = (wanted - self.p) / self.dt
        self.p, self.v, self.a = wanted, v, (v - self.v) / self.dt
        self._late_for = None

    def track(self, wanted: float, velocity: float) -> str | None:
        """Step to ``wanted``, or as near as the limits allow, and catch up with its motion.

        Args:
            wanted: where to be after this step.
            velocity: with which ``wanted`` itself moves on.

        Returns:
            The limit that the target itself breaks, "position" or "velocity", or None.
        """
        possible = self.violation(wanted) is None
        # Who arrives at another speed than the target's cannot stay with it.
        mismatch = (wanted - self.p) / self.dt - velocity
        if possible and abs(mismatch) <= self._max_da * self.dt:
            self.go(wanted)
        else:
            self.approach(wanted, velocity)
        if not self.limits.low <= wanted <= self.limits.high:
            return "position"
        return "velocity" if abs(velocity) > self._max_v else None

    def approach(self, wanted: float, velocity: float = 0.0) -> None:
        """Step towards ``wanted`` as far as the limits allow, so as to come to rest on it.

        Args:
            wanted: where to be after this step.
            velocity: with which ``wanted`` itself moves on. At rest then means: moving with it.
        """
        self._late_for = wanted
        goal = min(max(wanted, self.limits.low), self.limits.high)
        velocity = min(max(velocity, -self._max_v), self._max_v) if goal == wanted else 0.0
        calm = self.brake(self.v - velocity, self.a)
        if velocity != 0.0 and not self._safe_after(calm):
            self._advance(self._furthest(self.brake(self.v, self.a), calm, self._safe_after))
            return
        eager = ((goal - self.p) / self.dt - self.v) / self.dt
        eager = min(max(eager, self.a - self._max_da), self.a + self._max_da)
        eager = min(max(eager, -self._max_a), self._max_a)
        toward = math.copysign(1.0, goal - velocity * self.dt - self.p)
        rounding = MARGIN * max(1.0, abs(goal))

        def acceptable(a: float) -> bool:
            """Whether the step is safe and, where that can be avoided, does not pass ``goal``."""
            if not self._safe_after(a):
                return False
            v = self.v + a * self.dt
            end = self._rest(self.p + v * self.dt, v - velocity, a)
            return toward * (goal - end) >= -rounding

        self._advance(self._furthest(calm, eager, acceptable))

    def _safe_after(self, a: float) -> bool:
        v = self.v + a * self.dt
        return self._safe(self.p + v * self.dt, v, a)

    def _furthest(self, sure: float, eager: float, acceptable: Callable[[float], bool]) -> float:
        """The acceptable acceleration furthest on the way from ``sure``, which is, to ``eager``."""
        if acceptable(eager):
            return eager
        low, high = 0.0, 1.0  # shares of the way
        for _ in range(BISECTIONS):
            share = 0.5 * (low + high)
            if acceptable(sure + share * (eager - sure)):
                low = share
            else:
                high = share
        return sure + low * (eager - sure)

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

    def travel(self) -> Travel:
        """The way to rest if this axis brakes from now on."""
        return Travel(self.p, self.v, self.a, self.dt, self._phases(self.v, self.a))

    def _safe(self, p: float, v: float, a: float) -> bool:
        """Whether braking from (p, v, a) comes to rest without breaking a limit on the way."""
        low, high, max_v = self.limits.low, self.limits.high, self._max_v * (1.0 + 0.5 * MARGIN)
        if not (low <= p <= high and abs(v) <= max_v):
            return False
        if self._resting(v, a):
            return True
        for steps, change in self._phases(v, a):
            p, v, a = _advance(p, v, a, steps, change, self.dt)
            if not (low <= p <= high and abs(v) <= max_v):
                return False
        return True

    def _rest(self, p: float, v: float, a: float) -> float:
        """Where braking from (p, v, a) comes to rest, whatever the limits of p and v."""
        if not self._resting(v, a):
            for steps, change in self._phases(v, a):
                p, v, a = _advance(p, v, a, steps, change, self.dt)
        return p

    def _phases(self, v: float, a: float) -> list[tuple[int, float]]:
        """What calling ``brake`` until rest does, in closed form: (steps, change of a per step).

        No phase has a turning point of p or v inside: extremes are where phases meet. In the units
        of ``brake``, with speed V >= 0 and braking B, there are these phases:

        1. B too strong for so little speed: less by 1 per step, until the axis turns round;
        2. B too weak: more by 1 per step, while that is less than T⁻¹(V) and the limit;
        3. one smaller step to the first of the two; if to the limit, B stays while it is the less;
        4. B = T⁻¹(V), which from then on falls by 1 per step, to rest.
        """
        unit = self._max_da
        limit = self._max_a / unit
        forward = v > 0.0 or (v == 0.0 and a > 0.0)
        sign = -unit if forward else unit  # of the acceleration that brakes
        speed, braking = abs(v) / (unit * self.dt), a / sign
        phases: list[tuple[int, float]] = []
        if braking - 1.0 > _inverse_ramp(speed) + TOUCHING:
            root = math.sqrt(max((2.0 * braking - 1.0) ** 2 - 8.0 * speed, 0.0))
            steps = max(math.ceil(0.5 * (2.0 * braking - 1.0 - root)), 1)
            phases += [(steps - 1, -sign), (1, -sign)]
            speed = max(-speed + steps * braking - 0.5 * steps * (steps + 1), 0.0)
            braking, sign = steps - braking, -sign
        steps = _ramp_steps(speed, braking, limit)
        if steps > 0:
            rising = min(max(math.floor(-braking), 0), steps)  # while V still grows
            phases += [(rising, sign), (steps - rising, sign)]
            speed -= steps * braking + 0.5 * steps * (steps + 1)
            braking += steps
        strongest = _inverse_ramp(max(speed, 0.0))
        if strongest > limit:
            phases.append((1, (limit - braking) * sign))
            speed, braking = speed - limit, limit
            steps = max(math.floor((speed - _ramp(limit)) / limit) + 1, 0)
            phases.append((steps, 0.0))
            speed -= steps * limit
            strongest = _inverse_ramp(max(speed, 0.0))
        phases.append((1, (strongest - braking) * sign))
        phases.append((math.floor(strongest), -sign))
        return phases

    def _advance(self, a: float) -> None:
        self.v += a * self.dt
        self.a = a
        # Rounding may not push a resting axis over its bound.
        self.p = min(max(self.p + self.v * self.dt, self.limits.low), self.limits.high)


def axes_within(limits: Limits, dt: float) -> list[Axis]:
    """One axis per entry of ``limits``."""
    bounds = (limits.low, limits.high, limits.velocity, limits.acceleration, limits.jerk)
    return [Axis(AxisLimits(*entry), dt) for entry in zip(*bounds, strict=True)]


class Travel:
    """Positions of a braking axis, step by step, in closed form.

    Attributes:
        steps: until rest.
        span: the whole length of the way, there and back where it turns.
    """

    def __init__(
        self, p: float, v: float, a: float, dt: float, phases: list[tuple[int, float]]
    ) -> None:
        self._dt, self._parts = dt, []
        self.steps, self.span = 0, 0.0
        for steps, change in phases:
            self._parts.append((self.steps, p, v, a, change))
            start = p
            p, v, a = _advance(p, v, a, steps, change, dt)
            self.steps += steps
            self.span += abs(p - start)
        self.rest = p

    def at(self, step: int) -> float:
        """The position after ``step`` steps of braking."""
        if step >= self.steps:
            return self.rest
        for before, p, v, a, change in reversed(self._parts):
            if step >= before:
                return _advance(p, v, a, step - before, change, self._dt)[0]
        raise ValueError("steps count from 0")


def _advance(
    p: float, v: float, a: float, steps: int, change: float, dt: float
) -> tuple[float, float, float]:
    """(p, v, a) after ``steps``, in each of which a changes first, then v, then p."""
    sums = 0.5 * steps * (steps + 1)
    end = p + (steps * v + (sums * a + change * sums * (steps + 2) / 3.0) * dt) * dt
    return end, v + (steps * a + change * sums) * dt, a + steps * change


def _ramp(b: float) -> float:
    """T(b) = b + (b-1) + (b-2) + ..., all positive terms: continuous, increasing."""
    n = math.floor(b)
    return (n + 1) * b - 0.5 * n * (n + 1)


def _inverse_ramp(speed: float) -> float:
    """The b with T(b) = ``speed``."""
    n = math.floor(0.5 * (math.sqrt(1.0 + 8.0 * speed) - 1.0))
    return (speed + 0.5 * n * (n + 1)) / (n + 1)


def _ramp_steps(speed: float, braking: float, limit: float) -> int:
    """How often B may grow by 1 and stay below ``limit`` and T⁻¹ of the speed then left.

    After n steps, b = B + n. The speed before the last of them is V - (b(b-1) - B(B+1))/2, and
    T(b) = b(b+1)/2 + f(1-f)/2 with the fraction f of b, which is that of B: together b² <= ...
    """
    fraction = braking - math.floor(braking)
    square = speed + 0.5 * braking * (braking + 1.0) - 0.5 * fraction * (1.0 - fraction)
    return max(math.floor(min(limit, math.sqrt(max(square, 0.0))) - braking), 0)
