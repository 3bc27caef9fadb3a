"""A scripted, noisy and bimodal expert for two Pandas' Transport."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genpolicy_sim.experts.placing import (
    GRASP,
    GRASP_STEPS,
    HOVER,
    LOWER,
    OPEN_STEPS,
    RAISE,
    RELEASE,
    VIA,
    Placing,
    Sight,
)
from genpolicy_sim.experts.scripted import (
    WXYZ,
    Array,
    Mask,
    Phases,
    ScriptedExpert,
    leaning,
    pointing_down,
)
from genpolicy_sim.quaternions import multiply, rotate, yaw

OWN, HAMMER, WAIT = range(3)  # what an arm is about: lid or trash, the hammer, nothing
FIRST, SECOND = -1.0, 1.0  # where the arms stand, and which end of the hammer they take: y's sign
UP = np.array([0.0, 0.0, 1.0])
HOLD = np.array([0.0, 0.075, 0.0])  # m from the hammer's middle to where a hand takes its handle
LID_GRASP = np.array([0.0, 0.0, 0.005])  # m from its handle's middle: the fingers stay off the lid
START = np.array([0.2, -0.45, 0.0])  # m, about the middle of the bin that the hammer starts in
ASIDE = np.array([-0.2, -0.45, 0.835])  # m, where the lid's handle is put
LID_OFF = 0.0  # m in x, nearer than which the lid is off its bin
MEET = np.array([0.0, -0.03, 1.0])  # m, where the hammer is handed over
HOME = np.array([0.0, 0.35, 0.95])  # m, from between the arms, where they wait
BASE_DISTANCE = 0.81  # m in y from between the arms to their bases
# rad that a hand leans away from its arm, and back, to level the hammer: back, it would stretch.
MOST_OUT, MOST_BACK = 0.7, 0.05
# m from the middle of a bin's floor, where things are let go of: away from the arm, which folds up
# where it is near its base, and sticks.
DROPS = np.array([[0.0, -0.07, 0.1], [0.0, -0.02, 0.1]])
OUT = np.array([[0.0, 0.03, 0.0], [0.0, 0.1, 0.0]])  # m, rising with things and without: so too
STEEP = 0.9  # sine of the handle's slope, from which on its direction says nothing
REACH = 0.2  # m in y, beyond which the hammer lies on an arm's own side
APART = 0.25  # m between the hands: the first is out of the way of the hammer
GRIPPED = 0.008  # m from the middle to a finger with the handle between the two

# An arm's job [N], and from where and to where [2, N, 3], as ``Arm.wish``.
Wish = tuple[NDArray[np.int64], Array, Array]


class Things(NamedTuple):
    """What is seen of the objects of N environments; orientations wxyz."""

    hammer: Array  # [N, 3] m
    hammer_quat: Array  # [N, 4]
    trash: Array  # [N, 3] m
    trash_quat: Array  # [N, 4]
    lid: Array  # [N, 3] m
    lid_quat: Array  # [N, 4]
    target: Array  # [N, 3] m, the floor of the hammer's bin
    trash_bin: Array  # [N, 3] m
    delivered: Mask  # [N] hammer in its bin
    cleared: Mask  # [N] trash in its bin


class TransportExpert(ScriptedExpert):
    """The first arm takes the lid off and offers the hammer, the second takes it to its bin.

    Before that, the second clears the trash. An arm that fails starts over, and what was dropped
    is fetched again by the arm on whose side it lies. Options as ``ScriptedExpert``.
    """

    num_arms = 2

    def _set_up(self) -> None:
        self._arms = Arm(self.num_envs, FIRST), Arm(self.num_envs, SECOND)

    def _begin(self, mask: Mask) -> None:
        for arm in self._arms:
            arm.begin(mask, VIA if self.bimodal else HOVER, self._side)

    def _plan(self, obs: dict[str, Array]) -> Array:
        first, second = self._arms
        hands = [obs[f"robot{a}_eef_pos"] for a in range(2)]
        quats = [obs[f"robot{a}_eef_quat"][:, WXYZ] for a in range(2)]
        things = _things(obs["object"])
        apart = np.linalg.norm(hands[0] - hands[1], axis=1) > APART
        offered = first.about(HAMMER) & (first.phase == LOWER)
        gripped = obs["robot1_gripper_qpos"][:, 0] > GRIPPED
        taken = second.about(HAMMER) & (second.grasped() & gripped | second.holding())
        taking = second.about(HAMMER) & (second.phase == GRASP)
        first.wish(*_first_wishes(things), keep=offered & ~taken)
        second.wish(*_second_wishes(things, offered), keep=taking & ~apart)
        own = (things.lid, things.lid_quat), (things.trash, things.trash_quat)
        hammer = things.hammer, things.hammer_quat
        moves = [arm.act(hands[a], quats[a], *own[a], *hammer) for a, arm in enumerate(self._arms)]
        return np.concatenate(moves, axis=1)


class Arm(Placing):
    """One of the two arms.

    Args:
        num_envs: N.
        end: ``FIRST`` or ``SECOND``.
    """

    hover_height, carry_height = 0.15, 1.1  # m: over the bins' walls

    def __init__(self, num_envs: int, end: float) -> None:
        self.num_envs, self.end = num_envs, end
        self._phases, self._side = Phases(num_envs), np.ones(num_envs)
        self._job = np.full(num_envs, OWN)
        self._keep = np.zeros(num_envs, np.bool_)
        self._sense = np.ones(num_envs)  # of the hammer's axis, towards the second arm
        self.origin, self.place = np.zeros((2, num_envs, 3))
        self._home = np.tile(HOME * [1.0, end, 1.0], (num_envs, 1))

    @property
    def phase(self) -> NDArray[np.int64]:
        """``[N]`` which it is in, as numbered in ``placing``."""
        return self._phases.now

    def begin(self, mask: Mask, phase: int, side: Array) -> None:
        """Episodes begin in the environments of ``mask``."""
        self._phases.enter(mask, phase)
        self._side = side

    def about(self, job: int) -> Mask:
        """``[N]`` whether it is about ``job``."""
        return self._job == job

    def grasped(self) -> Mask:
        """``[N]`` whether its fingers have just closed."""
        return (self.phase == GRASP) & (self._phases.steps >= GRASP_STEPS)

    def holding(self) -> Mask:
        """``[N]`` whether it carries something."""
        return (self.phase > GRASP) & (self.phase < RELEASE)

    def wish(self, job: NDArray[np.int64], origins: Array, places: Array, keep: Mask) -> None:
        """What to do next, if it is free, and where to put things.

        Args:
            job: ``[N]``.
            origins: ``[2, N, 3]`` m, over which its own object and the hammer are raised.
            places: ``[2, N, 3]`` m, where they are put.
            keep: ``[N]`` whether the other arm is to be waited for.
        """
        self._job = np.where(self.phase <= HOVER, job, self._job)
        which = np.minimum(self._job, HAMMER), np.arange(self.num_envs)
        self.origin, self.place = origins[which], places[which]
        self._keep = keep | self.about(WAIT)
        self._phases.steps[self._keep & (self.phase != GRASP)] = 0  # no matter how long

    def act(
        self,
        eef: Array,
        quat: Array,
        own: Array,
        own_quat: Array,
        hammer: Array,
        hammer_quat: Array,
    ) -> Array:
        """Actions ``[N, 7]`` in the frame of the arm's base."""
        rows, still = np.arange(self.num_envs), np.tile([1.0, 0.0, 0.0, 0.0], (self.num_envs, 1))
        thing = np.stack([own, hammer, self._home])[self._job, rows]
        turned = np.stack([own_quat, hammer_quat, still])[self._job, rows]
        action = self._follow(Sight(eef, quat, thing, turned))
        base = yaw(np.array([0.25 * np.pi * self.end]))
        for part in (slice(0, 3), slice(3, 6)):
            action[:, part] = rotate(base, action[:, part])
        return action

    def _ready(self) -> Mask:
        return ~self._keep

    def _target(self, sight: Sight, grasp: Array, unturned: Array) -> Array:
        target = super()._target(sight, grasp, unturned)
        # Rising from where it happens to be, it would scrape along a bin's wall or fold up.
        hold = self.end * HOLD * self.about(HAMMER)[:, None]
        away = (self.phase == RELEASE) & (self._phases.steps >= OPEN_STEPS)
        hold, raised = hold - self.end * OUT[:, None], self.phase == RAISE
        for mask, over, by in ((raised, self.origin, hold[0]), (away, self.place, hold[1])):
            target[mask, :2] = (over + by)[mask, :2]
        # Pursuing what both hold, the two would push each other away.
        target[self._keep & self.grasped()] = MEET + self.end * HOLD
        return target

    def _held_aim(self, sight: Sight) -> Array:
        down = pointing_down(np.full(self.num_envs, -0.5 * np.pi * self.end))
        finger = rotate(sight.quat, UP)
        tilt = np.arctan2(finger[:, 1], -finger[:, 2]) - np.arcsin(self._along(sight)[:, 2])
        half = 0.5 * self.end * np.clip(self.end * tilt, -MOST_OUT, MOST_BACK) * self.about(HAMMER)
        zero = np.zeros_like(half)
        return multiply(np.stack([np.cos(half), np.sin(half), zero, zero], axis=1), down)

    def _grasp(self, sight: Sight) -> tuple[Array, Array]:
        along, hammer = self._along(sight), self.about(HAMMER)
        x = rotate(sight.thing_quat, np.array([1.0, 0.0, 0.0]))
        # The fingers close across the handle; trash and lid are the same after a quarter turn.
        across = np.arctan2(-along[:, 0], along[:, 1]) * (np.abs(along[:, 2]) < STEEP)
        turn = np.where(hammer, across, _quarter(np.arctan2(x[:, 1], x[:, 0])))
        turn[self.grasped() | (self.phase > GRASP)] = (
            0.0  # after what it holds it would turn ever on
        )
        grasp = sight.thing + np.where(hammer[:, None], self.end * HOLD[1] * along, 0.0)
        out = sight.eef[:, :2] - [0.0, self.end * BASE_DISTANCE]
        return grasp, leaning(pointing_down(turn - 0.5 * np.pi * self.end), out)

    def _along(self, sight: Sight) -> Array:
        """Direction ``[N, 3]`` of the hammer's handle, towards the second arm's side when taken."""
        axis = rotate(sight.thing_quat, UP)
        free = self.phase < GRASP
        self._sense[free] = np.where(axis[:, 1] < 0.0, -1.0, 1.0)[free]
        return self._sense[:, None] * np.clip(axis, -1.0, 1.0)


def _things(seen: Array) -> Things:
    """What the observation ``object [N, 41]`` says."""
    poses = seen[:, :21].reshape(-1, 3, 7)
    (hammer, trash, lid), quats = np.moveaxis(poses[..., :3], 1, 0), poses[..., 3:][..., WXYZ]
    return Things(
        *(hammer, quats[:, 0], trash, quats[:, 1]),
        *(lid + LID_GRASP, quats[:, 2]),
        *(seen[:, 21:24], seen[:, 24:27]),
        *(seen[:, 27] > 0.0, seen[:, 28] > 0.0),
    )


def _first_wishes(things: Things) -> Wish:
    """The first arm's."""
    near = things.hammer[:, 1] < -REACH
    job = np.where(things.lid[:, 0] > LID_OFF, OWN, np.where(near, HAMMER, WAIT))
    to = np.stack([ASIDE, MEET])[:, None]
    return job, np.broadcast_to(START, (2, len(job), 3)), np.broadcast_to(to, (2, len(job), 3))


def _second_wishes(things: Things, offered: Mask) -> Wish:
    """The second arm's, given where the first offers the hammer."""
    near = (things.hammer[:, 1] > REACH) & ~things.delivered
    job = np.where(things.cleared, np.where(near | offered, HAMMER, WAIT), OWN)
    origins = np.stack([things.target, np.broadcast_to(MEET, things.target.shape)])
    return job, origins, np.stack([things.trash_bin, things.target]) + DROPS[:, None]


def _quarter(angle: Array) -> Array:
    """The least of the angles that differ by quarter turns, rad."""
    return (angle + 0.25 * np.pi) % (0.5 * np.pi) - 0.25 * np.pi
