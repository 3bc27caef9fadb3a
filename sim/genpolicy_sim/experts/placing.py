"""What the experts of Can, Square and Transport share: fetch, carry to its place, let go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

from genpolicy_sim.experts.scripted import (
    WXYZ,
    Array,
    Mask,
    Phases,
    ScriptedExpert,
    move,
    turn_to,
)
from genpolicy_sim.quaternions import XYZW

VIA, HOVER, DESCEND, GRASP, RAISE, CARRY, LOWER, RELEASE = range(8)
SIDE_OFFSET = 0.08  # m to the left or right of the object on the way to it
FAR = 0.1  # m beside the object: fly high, over what stands around
# Descending, the hand stays FUNNEL times as high above the object as it is off its middle.
CENTRED, FUNNEL = 0.01, 5.0
REACHED = 0.02  # m
TURNED = 0.15  # rad
GRASP_STEPS = 10  # control steps that the fingers need to close
LOST = 0.05  # m from the gripper to where it holds the object: it does not
OPEN_STEPS = 5  # control steps to open before the hand moves
RELEASE_STEPS = 25  # control steps to open and rise before it tries again
PATIENCE = 80  # control steps in a phase before it tries again


class Sight(NamedTuple):
    """What is seen of N arms and their objects; orientations wxyz."""

    eef: Array  # [N, 3] m
    quat: Array  # [N, 4] of the hand
    thing: Array  # [N, 3] m
    thing_quat: Array  # [N, 4]


class Placing(ABC):
    """One arm's plan in N environments: fetch an object, carry it to its place, let it go.

    By a via-point over the object, down, grasp, up, over its place, down, open and up. An object
    that slips, and an attempt that lasts too long, start over.
    """

    num_envs: int  # N
    _phases: Phases
    _side: Array  # [N] -1 or 1, of the via-point
    place: Array  # [3] or [N, 3] m, where the object is let go of
    hover_height: ClassVar[float] = 0.08  # m above the object before descending
    carry_height: ClassVar[float]  # m, of the gripper on the way there
    # m in x: rising, the hand keeps as far from the base, where the arm would fold up.
    nearest: ClassVar[float] = -np.inf
    # m/rad short of the place while the hand is not turned: it swings round out of the arm's reach.
    hold_back: ClassVar[float] = 0.0
    # When it is near enough to be lowered and to be let go of, m:
    above_place: ClassVar[float] = REACHED
    at_place: ClassVar[float] = REACHED

    @abstractmethod
    def _grasp(self, sight: Sight) -> tuple[Array, Array]:
        """Where and how the hand takes the object: ``[N, 3]`` m and wxyz ``[N, 4]``."""

    @abstractmethod
    def _held_aim(self, sight: Sight) -> Array:
        """How the hand is turned to carry and place the object: wxyz ``[N, 4]``."""

    def _ready(self) -> Mask:
        """``[N]`` whether the next phase may begin when this one's goal is reached."""
        return np.ones(self.num_envs, np.bool_)

    def _follow(self, sight: Sight) -> Array:
        """Actions ``[N, 7]`` in the world's frame, without noise."""
        grasp, aim = self._grasp(sight)
        self._start_over(sight, grasp)
        carrying = (self._phases.now == CARRY) | (self._phases.now == LOWER)
        aim = np.where(carrying[:, None], self._held_aim(sight), aim)
        opening = (self._phases.now == RELEASE) & (self._phases.steps < OPEN_STEPS)
        aim = np.where(opening[:, None], sight.quat, aim)
        unturned = np.linalg.norm(turn_to(sight.quat, aim), axis=1) - TURNED
        self._advance(sight, self._target(sight, grasp, unturned), unturned)
        closed = (self._phases.now >= GRASP) & (self._phases.now < RELEASE)
        target = self._target(sight, grasp, unturned)
        return move(sight.eef, sight.quat[:, XYZW], target, aim, np.where(closed, 1.0, -1.0))

    def _target(self, sight: Sight, grasp: Array, unturned: Array) -> Array:
        """Where the end effector goes in its present phase, ``[N, 3]``."""
        eef, beside = sight.eef, np.linalg.norm((grasp - sight.eef)[:, :2], axis=1)
        over, down = grasp.copy(), grasp.copy()
        over[:, 2] += self.hover_height
        down[:, 2] += np.clip(FUNNEL * (beside - CENTRED), 0.0, self.hover_height)
        via = over.copy()
        via[:, 1] += SIDE_OFFSET * self._side
        over[beside > FAR, 2] = self.carry_height
        up, across = eef.copy(), eef + self.place - sight.thing
        carry = across.copy()
        up[:, 2] = carry[:, 2] = self.carry_height
        up[:, 0] = np.maximum(up[:, 0], self.nearest)
        carry[:, 0] -= self.hold_back * np.maximum(unturned, 0.0)
        opening = self._phases.steps[:, None] < OPEN_STEPS
        away = np.where(opening, eef, up)
        return self._phases.of([via, over, down, grasp, up, carry, across, away])

    def _advance(self, sight: Sight, target: Array, unturned: Array) -> None:
        """Enter the next phase where the present one's goal is reached."""
        phase, steps = self._phases.now, self._phases.steps
        off = target - sight.eef
        off[phase == CARRY, 2] = 0.0
        off[phase == LOWER, :2] = 0.0
        distance = np.linalg.norm(off, axis=1)
        near, limits = np.zeros(self.num_envs, np.bool_), np.full(RELEASE, REACHED)
        limits[[DESCEND, CARRY, LOWER]] = 0.5 * REACHED, self.above_place, self.at_place
        moving = phase < RELEASE
        near[moving] = distance[moving] < limits[phase[moving]]
        near &= (unturned < 0.0) | (phase == VIA)
        near = np.where(phase == GRASP, steps >= GRASP_STEPS, near)
        self._phases.steps += 1
        self._phases.enter(near & moving & self._ready(), phase + 1)

    def _start_over(self, sight: Sight, grasp: Array) -> None:
        """Let go where the object is not in the hand, and approach again."""
        phase, steps = self._phases.now, self._phases.steps
        holding = (phase > GRASP) & (phase < RELEASE)
        lost = holding & (np.linalg.norm(grasp - sight.eef, axis=1) > LOST)
        late = (phase < RELEASE) & (steps > PATIENCE)
        self._phases.enter((phase == RELEASE) & (steps > RELEASE_STEPS), HOVER)
        self._phases.enter(lost | late, RELEASE)


class PlaceExpert(Placing, ScriptedExpert):
    """An expert that carries one object to its place; options as ``ScriptedExpert``."""

    def _set_up(self) -> None:
        self._phases = Phases(self.num_envs)

    def _begin(self, mask: Mask) -> None:
        self._phases.enter(mask, VIA if self.bimodal else HOVER)

    def _plan(self, obs: dict[str, Array]) -> Array:
        eef, quat, thing = obs["robot0_eef_pos"], obs["robot0_eef_quat"], obs["object"]
        return self._follow(Sight(eef, quat[:, WXYZ], thing[:, 7:10], thing[:, 10:14][:, WXYZ]))
