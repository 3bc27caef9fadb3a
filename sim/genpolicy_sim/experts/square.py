"""A scripted, noisy and bimodal expert for Panda Square."""

from __future__ import annotations

import numpy as np

from genpolicy_sim.experts.placing import DESCEND, PlaceExpert, Sight
from genpolicy_sim.experts.scripted import Array, pointing_down
from genpolicy_sim.quaternions import multiply, rotate, yaw

HANDLE = np.array([0.06, 0.0, 0.0])  # m in the nut's frame, where the hand takes it
LEAST_TURN, MOST_TURN = np.radians([-100.0, 205.0])  # that the arm's last joint allows the hand
TURN_STEP = 1.0  # rad at once: never the short way round through the joint's limit
# rad, the nut's over the peg: its handle towards the arm, which it reaches.
SQUARE_TURN = np.array(np.pi)


class SquareExpert(PlaceExpert):
    """Takes the nut by its handle, turns it square to the peg and lets it fall over it."""

    place = np.array([0.23, 0.1, 0.9])  # m, about the upper half of the peg
    carry_height = 1.0  # m: the nut passes 4 cm above the peg
    nearest = -0.1
    hold_back = 0.2
    above_place = 0.005

    def _set_up(self) -> None:
        super()._set_up()
        self._reverse = np.zeros(self.num_envs, np.bool_)  # the hand points along the handle

    def _grasp(self, sight: Sight) -> tuple[Array, Array]:
        handle = sight.thing + rotate(sight.thing_quat, HANDLE)
        along = _turn_of(sight.thing_quat)
        choosing = self._phases.now < DESCEND
        self._reverse[choosing] = _better_reversed(along)[choosing]
        goal = _within_limits(along + np.pi * self._reverse)
        return handle, pointing_down(_step_towards(_hand_turn(sight.quat), goal))

    def _held_aim(self, sight: Sight) -> Array:
        now = _hand_turn(sight.quat)
        goal = _within_limits(now + SQUARE_TURN - _turn_of(sight.thing_quat))
        turn = yaw(0.5 * (_step_towards(now, goal) - now))
        return multiply(turn, multiply(_levelling(sight.thing_quat), sight.quat))


def _turn_of(quat: Array) -> Array:
    """Direction ``[N]`` in the plane of a body's x axis, rad."""
    x = rotate(quat, np.array([1.0, 0.0, 0.0]))
    return np.arctan2(x[:, 1], x[:, 0])


def _hand_turn(quat: Array) -> Array:
    """How far ``[N]`` a hand that points down is turned, rad, as ``pointing_down``."""
    return _within_limits(_turn_of(quat))


def _within_limits(angle: Array) -> Array:
    """The same direction, rad, about the middle of what the arm allows."""
    low = 0.5 * (LEAST_TURN + MOST_TURN) - np.pi
    return low + (angle - low) % (2.0 * np.pi)


def _step_towards(now: Array, goal: Array) -> Array:
    return now + np.clip(goal - now, -TURN_STEP, TURN_STEP)


def _better_reversed(along: Array) -> Array:
    """``[N]`` whether the hand turns less, to the handle and on to the peg, if reversed."""
    costs = []
    for reverse in (0.0, np.pi):
        take, leave = _within_limits(along + reverse), _within_limits(SQUARE_TURN + reverse)
        allowed = (take > LEAST_TURN) & (take < MOST_TURN)
        costs.append(np.where(allowed, np.abs(take) + np.abs(leave - take), np.inf))
    return costs[1] < costs[0]


def _levelling(quat: Array) -> Array:
    """The least rotation wxyz ``[N, 4]`` that makes a body's z axis vertical."""
    x, y, z = rotate(quat, np.array([0.0, 0.0, 1.0])).T
    least = np.stack([1.0 + z, y, -x, np.zeros_like(z)], axis=1)
    return least / np.maximum(np.linalg.norm(least, axis=1, keepdims=True), 1e-9)
