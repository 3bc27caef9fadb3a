"""A scripted, multimodal expert for push-T: plan two pushes, go round the block, push, plan anew.

Episodes differ in taste: each likes some faces of the T better than others and goes round it rather
clockwise or rather counter-clockwise, so that the same state has several good actions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import Observation
from genpolicy_sim.experts.pushing import (
    CONTACTS,
    NUM_CONTACTS,
    REACH,
    RING,
    Pushes,
    before,
    best_pair,
    error,
    free,
    gap,
    in_world,
    nearest_on_ring,
    on_ring,
    pushed,
    pusher_at,
    refined,
    ring_length,
    ways_between,
)
from genpolicy_sim.jit import njit
from genpolicy_sim.push_t import GOAL, WORKSPACE, relative_pose

Array = NDArray[np.float64]

PLAN, GO, PUSH = range(3)
GO_LEAD, PUSH_LEAD = 0.08, 0.06  # m, how far the pusher is sent ahead
THERE = 0.006  # m from the place before the contact
SLIPPED = 0.012  # m beside the contact
DONE = 0.0006  # m, a push that is not worth making
SLOW = 0.05  # of the present error: likewise
PATIENCE = 40  # control steps for one contact
DETOUR = 1.6  # how much longer the way round may be that an episode prefers
BLOCKED = 2.0  # m, what a way round is dearer by that leaves the workspace
PICKY = 0.8  # how much dearer the contact is that an episode likes least


class Minds(NamedTuple):
    """What N experts have in mind, first axis N."""

    phase: NDArray[np.int64]
    pair: NDArray[np.int64]  # [N, 2] contacts
    metres: Array  # [N, 2] of their pushes
    direction: NDArray[np.int64]  # +1 counter-clockwise round the block
    steps: NDArray[np.int64]  # control steps since the plan
    taste: Array  # [N, M] factors of the contacts' costs
    preferred: NDArray[np.int64]  # the direction that the episode prefers


@njit(nogil=True, cache=True)
def _blocked(pose: Array, begin: float, length: float, direction: int) -> bool:
    """Whether the way round leaves the workspace."""
    for k in range(1, 9):
        x, y = on_ring(begin + direction * length * k / 8)
        x, y = in_world(pose, x, y)
        if max(abs(x), abs(y)) > REACH:
            return True
    return False


@njit(nogil=True, cache=True)
def _way(pose: Array, own: Array, contact: Array, preferred: int) -> tuple[float, int]:
    """Length and direction of the way round to a contact."""
    x, y = before(contact)
    begin = nearest_on_ring(own[0], own[1])
    direct = np.hypot(x - own[0], y - own[1])
    best, way, chosen = np.inf, 0.0, 1
    for direction in (-1, 1):
        length = (direction * (nearest_on_ring(x, y) - begin)) % ring_length()
        price = length if direction == preferred else DETOUR * length
        if _blocked(pose, begin, length, direction):
            price += BLOCKED
        if price < best:
            best, way, chosen = price, max(price, direct), direction
    return way, chosen


@njit(nogil=True, cache=True)
def _toward(x: float, y: float, to_x: float, to_y: float, lead: float) -> tuple[float, float]:
    """The place ``lead`` on the way to (to_x, to_y), or that one where it is nearer."""
    distance = np.hypot(to_x - x, to_y - y)
    share = min(1.0, lead / max(distance, 1e-9))
    return x + share * (to_x - x), y + share * (to_y - y)


@njit(nogil=True, cache=True)
def _least(pose: Array, goal: Array) -> float:
    """The shortest push that is worth making, m."""
    return max(DONE, SLOW * error(pose, goal))


@njit(nogil=True, cache=True)
def _plan(minds: Minds, i: int, pose: Array, own: Array, goal: Array, between: Array) -> None:
    travel = np.empty(CONTACTS.shape[0])
    for m in range(travel.shape[0]):
        travel[m] = _way(pose, own, CONTACTS[m], minds.preferred[i])[0]
    found = best_pair(pose, goal, travel, between, minds.taste[i])
    found = refined(pose, goal, found, 8)
    first, first_m, second_m = found.first, found.first_m, found.second_m
    if first_m < _least(pose, goal):  # the second push does it alone
        first, first_m, second_m = found.second, second_m, 0.0
    minds.pair[i, 0], minds.pair[i, 1] = first, found.second
    minds.metres[i, 0], minds.metres[i, 1] = first_m, second_m
    contact = CONTACTS[first]
    minds.direction[i] = _way(pose, own, contact, minds.preferred[i])[1]
    minds.phase[i], minds.steps[i] = GO, 0


@njit(nogil=True, cache=True)
def _go(own: Array, contact: Array, direction: int) -> tuple[float, float]:
    """Where to send the pusher on the way to the contact, in the block's frame."""
    x, y = before(contact)
    begin, end = nearest_on_ring(own[0], own[1]), nearest_on_ring(x, y)
    length = (direction * (end - begin)) % ring_length()
    if gap(own[0], own[1]) < 0.6 * RING:  # away from the block first
        away_x, away_y = on_ring(begin + direction * min(length, 0.01))
        return away_x, away_y
    for k in range(24, 0, -1):
        to_x, to_y = on_ring(begin + direction * length * k / 24)
        if free(own[0], own[1], to_x, to_y):
            return _toward(own[0], own[1], to_x, to_y, GO_LEAD)
    return on_ring(begin + direction * min(length, 0.02))


@njit(nogil=True, cache=True)
def _push(pose: Array, contact: Array, left: float) -> tuple[float, float]:
    """Where to send the pusher, in the world, for a push of which ``left`` m are left."""
    moved = pushed(pose, contact, min(left, PUSH_LEAD))
    return pusher_at(np.array(moved), contact, 0.0)


@njit(nogil=True, cache=True)
def _look(minds: Minds, i: int, pose: Array, own: Array, goal: Array) -> None:
    """Enter the next phase where the present one is over."""
    contact = CONTACTS[minds.pair[i, 0]]
    minds.steps[i] += 1
    x, y = before(contact)
    away_x, away_y = own[0] - x, own[1] - y
    if minds.phase[i] == GO and np.hypot(away_x, away_y) < THERE:
        minds.phase[i], minds.steps[i] = PUSH, 0
    if minds.phase[i] == PUSH:
        plan = Pushes(
            minds.pair[i, 0], minds.pair[i, 1], minds.metres[i, 0], minds.metres[i, 1], 0.0
        )
        plan = refined(pose, goal, plan, 6)
        minds.metres[i, 0], minds.metres[i, 1] = plan.first_m, plan.second_m
        beside = abs(away_x * contact[3] - away_y * contact[2])
        if plan.first_m < _least(pose, goal) or beside > SLIPPED:
            minds.phase[i] = PLAN
    if minds.steps[i] > PATIENCE:
        minds.phase[i] = PLAN


@njit(nogil=True, cache=True)
def _targets(
    minds: Minds, pusher: Array, block: Array, goal: Array, between: Array, out: Array
) -> None:
    """Where to send the pushers ``[N, 2]`` of N environments, m."""
    pose, seen = np.empty(3), np.empty(3)
    for i in range(pusher.shape[0]):
        pose[0], pose[1] = block[i, 0], block[i, 1]
        pose[2] = np.arctan2(block[i, 3], block[i, 2])
        seen[0], seen[1], seen[2] = pusher[i, 0], pusher[i, 1], 0.0
        own = relative_pose(seen, pose)
        if minds.phase[i] != PLAN:
            _look(minds, i, pose, own, goal)
        if minds.phase[i] == PLAN:
            _plan(minds, i, pose, own, goal, between)
        contact = CONTACTS[minds.pair[i, 0]]
        if minds.phase[i] == GO:
            x, y = _go(own, contact, minds.direction[i])
            x, y = in_world(pose, x, y)
        else:
            x, y = _push(pose, contact, minds.metres[i, 0])
        out[i, 0] = min(max(x, -REACH), REACH)
        out[i, 1] = min(max(y, -REACH), REACH)


class PushTExpert:
    """Plans, goes and pushes, for N environments.

    Args:
        num_envs: N.
        rng: draws tastes and noise.
        noise: standard deviation of the Gaussian noise on the target, m.
    """

    def __init__(self, num_envs: int, rng: np.random.Generator, noise: float = 0.001) -> None:
        self.num_envs, self.rng, self.noise = num_envs, rng, noise
        n = num_envs
        counts = [np.zeros(n, np.int64) for _ in range(4)]
        pair, taste = np.zeros((n, 2), np.int64), np.ones((n, NUM_CONTACTS))
        self._minds = Minds(
            counts[0], pair, np.zeros((n, 2)), counts[1], counts[2], taste, counts[3]
        )
        self._between, self._goal = ways_between(), np.array(GOAL)
        self.reset()

    def reset(self, mask: NDArray[np.bool_] | None = None) -> None:
        """Begin new episodes, in the environments of ``mask`` (default all)."""
        mask = np.ones(self.num_envs, np.bool_) if mask is None else mask
        minds = self._minds
        minds.phase[mask] = PLAN
        faces = np.unique(CONTACTS[:, 2:], axis=0, return_inverse=True)[1].ravel()
        dear = self.rng.uniform(0.0, PICKY, (self.num_envs, faces.max() + 1))
        minds.taste[mask] = 1.0 + dear[mask][:, faces]
        minds.preferred[mask] = self.rng.choice([-1, 1], self.num_envs)[mask]

    def act(self, obs: Observation) -> Array:
        """Actions ``[N, 1, 2]`` for observations ``{name: [N, To, D]}``."""
        pusher = obs["pusher"][:, -1].astype(np.float64)
        block = obs["block"][:, -1].astype(np.float64)
        target = np.empty((self.num_envs, 2))
        _targets(self._minds, pusher, block, self._goal, self._between, target)
        target += self.noise * self.rng.standard_normal(target.shape)
        return np.clip(target / WORKSPACE, -1.0, 1.0)[:, None]
