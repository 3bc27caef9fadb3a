"""Where an arm may be: its hand inside a box, its links clear of each other and of the rest.

What is checked is the way from a joint command to rest, if the joints brake from there on: as long
as the way of every command that is sent is clear, braking is a way out that is clear, too.

Every *margin* (the hand's distance from the walls of the box, the distance of two bodies) changes
by at most a known rate per joint motion. So a margin measured once rules out whole stretches of
motion, and is measured anew only where it does not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genpolicy_deploy.joint_envelope import BrakingPath
from genpolicy_deploy.kinematics import Kinematics
from genpolicy_deploy.robots.arm_config import Workspace

Vector = NDArray[np.float64]
Indices = NDArray[np.intp]

SKIN = 5e-4  # m: margins are kept larger by this, so that not every single step needs a look
TOUCHING = 1e-6  # m: less is rounding
LOOKS = 24  # poses per command that are looked at, at most; more would take too long: brake
FAR = 1.0  # m: distances are measured up to here


class Pair(NamedTuple):
    """Two shapes that must not come near each other."""

    first: int
    second: int


class Clearance:
    """The margins of one arm. Index 0 is the hand's in the box, the others are of ``pairs``.

    A margin that is too small at the start may only grow: leaving a bad place is possible.

    Args:
        kinematics: the arm's model; its pose is changed by every call.
        workspace: box and clearance.
    """

    def __init__(self, kinematics: Kinematics, workspace: Workspace) -> None:
        self._distance = kinematics.mujoco.mj_geomDistance
        self._slide = int(kinematics.mujoco.mjtJoint.mjJNT_SLIDE)
        self._kinematics = kinematics
        self._low, self._high = np.array(workspace.low), np.array(workspace.high)
        self.pairs = self._choose_pairs()
        self._rates = np.array([self._hand_rates(), *map(self._pair_rates, self.pairs)])  # [K, J]
        self._required = np.full(len(self.pairs) + 1, workspace.clearance + SKIN)
        self._required[0] = SKIN
        self._margins = np.zeros(len(self._required))
        self._measured_at = np.zeros_like(self._rates)  # the joints where each was measured
        self._floor = self._required.copy()
        self._hand = np.zeros(6)

    def start(self, position: Vector) -> None:
        """The arm is at ``position [J]``, good or bad."""
        everything = np.arange(len(self._required))
        self._measured_at[:] = position
        self._margins[:] = self._measure(position, everything)
        self._floor = np.minimum(self._required, self._margins)

    def blocks(self, path: BrakingPath) -> str | None:
        """Why the first command of ``path`` may not be sent: "workspace", "collision" or None."""
        here = path.at(0)
        moved = np.abs(here - self._measured_at) + path.span
        sure = self._margins - (self._rates * moved).sum(axis=1)
        doubtful = np.flatnonzero(sure < self._floor)
        if not len(doubtful):
            return None
        margins = self._measure(here, doubtful)
        self._measured_at[doubtful], self._margins[doubtful] = here, margins
        wrong = self._way(path, here, margins, doubtful)
        if wrong is not None:
            return "workspace" if wrong == 0 else "collision"
        floor = np.maximum(self._floor[doubtful], margins)
        self._floor[doubtful] = np.minimum(floor, self._required[doubtful])
        return None

    def _way(self, path: BrakingPath, here: Vector, margins: Vector, which: Indices) -> int | None:
        """The first of the margins ``which`` that falls below its floor on the way, or None.

        Between two poses whose margins are m and n, and whose distance changes no margin by more
        than d, none is less than (m + n - d) / 2. Where that is not enough, look in the middle.
        """
        floor = self._floor[which]
        if (low := margins < floor - TOUCHING).any():
            return int(which[np.argmax(low)])
        rest = path.at(path.steps)
        ends = self._measure(rest, which)
        if (low := ends < floor - TOUCHING).any():
            return int(which[np.argmax(low)])
        # Joints that turn round on the way go further than from end to end.
        extra = np.maximum(path.span - np.abs(rest - here), 0.0)
        stretches = [(0, here, margins, path.steps, rest, ends)]
        looks = 2
        while stretches:
            first, start, m, last, end, n = stretches.pop()
            moved = self._rates[which] @ (np.abs(end - start) + extra)
            unsure = 0.5 * (m + n - moved) < floor - SKIN
            if last - first <= 1 or not unsure.any():
                continue
            if looks >= LOOKS:
                return int(which[np.argmax(unsure)])
            middle = (first + last) // 2
            pose = path.at(middle)
            between = self._measure(pose, which)
            looks += 1
            if (low := between < floor - TOUCHING).any():
                return int(which[np.argmax(low)])
            stretches.append((middle, pose, between, last, end, n))
            stretches.append((first, start, m, middle, pose, between))
        return None

    def _measure(self, position: Vector, which: Indices) -> Vector:
        """The margins ``which`` at ``position [J]``."""
        kinematics = self._kinematics
        kinematics.place(position)
        model, data = kinematics.model, kinematics.data
        margins = np.empty(len(which))
        for row, index in enumerate(which.tolist()):
            if index == 0:
                kinematics.hand(self._hand)
                hand = self._hand[:3]
                margins[row] = min((hand - self._low).min(), (self._high - hand).min())
            else:
                pair = self.pairs[index - 1]
                margins[row] = self._distance(model, data, pair.first, pair.second, FAR, None)
        return margins

    def _choose_pairs(self) -> list[Pair]:
        """All that can move against each other, are no neighbours and may collide in the model."""
        model = self._kinematics.model
        solid = [g for g in range(model.ngeom) if model.geom_contype[g] | model.geom_conaffinity[g]]
        moving = {b: self._kinematics.moves(b) for b in range(model.nbody)}
        bodies = {int(model.geom_bodyid[g]) for g in solid}
        ours = {b for b in bodies if moving[b].any()}
        # Objects with joints of their own are not where the model has them: no obstacles.
        known = ours | {b for b in bodies if model.body_weldid[b] == 0}
        pairs = []
        for first in solid:
            for second in solid:
                a, b = int(model.geom_bodyid[first]), int(model.geom_bodyid[second])
                if first >= second or not {a, b} <= known or not ours & {a, b}:
                    continue
                if self._collide(first, second) and not self._neighbours(a, b):
                    pairs.append(Pair(first, second))
        return pairs

    def _collide(self, first: int, second: int) -> bool:
        """What the model itself says of two shapes."""
        model = self._kinematics.model
        types, affinities = model.geom_contype, model.geom_conaffinity
        a, b = sorted((int(model.geom_bodyid[first]), int(model.geom_bodyid[second])))
        excluded = (a << 16) + b in model.exclude_signature
        matching = types[first] & affinities[second] or types[second] & affinities[first]
        return bool(matching) and not excluded

    def _neighbours(self, a: int, b: int) -> bool:
        """Whether one joint, or none, lies between two bodies: they touch by construction."""
        model = self._kinematics.model
        welds = model.body_weldid
        if welds[a] == welds[b]:
            return True
        for child, other in ((a, b), (b, a)):
            if welds[child] == 0:
                continue
            parent = int(model.body_parentid[welds[child]])
            same = welds[other] == welds[parent]
            # To the world is welded what carries the arm, and what merely stands around it.
            carries = welds[parent] != 0 or other in self._kinematics.ancestors(parent)
            if other == parent or (same and carries):
                return True
        return False

    def _hand_rates(self) -> Vector:
        """How far the hand moves per motion of each joint, at most, ``[J]``."""
        kinematics = self._kinematics
        site = kinematics.model.site(kinematics.site)
        body = int(kinematics.model.site_bodyid[kinematics.site])
        return self._reach(body, float(np.linalg.norm(site.pos)))

    def _pair_rates(self, pair: Pair) -> Vector:
        """The change of two shapes' distance per motion of each joint, at most, ``[J]``."""
        model = self._kinematics.model
        bodies = [int(model.geom_bodyid[geom]) for geom in pair]
        reaches = [
            self._reach(body, float(np.linalg.norm(model.geom_pos[geom]) + model.geom_rbound[geom]))
            for body, geom in zip(bodies, pair, strict=True)
        ]
        first, second = (self._kinematics.moves(body) for body in bodies)
        # A joint that carries both moves neither against the other, unless something follows it.
        both = first & second
        for _, source, _, _ in self._kinematics.coupled:
            both[source] = False
        return np.where(both, 0.0, reaches[0] + reaches[1])

    def _reach(self, body: int, tip: float) -> Vector:
        """From each joint's axis to the farthest point of what ``body`` carries, at most, ``[J]``.

        Args:
            body: index.
            tip: m from the body's origin to that point.
        """
        kinematics = self._kinematics
        model = kinematics.model
        reach = np.zeros(len(kinematics.joint_ids))
        length = tip
        while body != 0:
            joints = range(
                model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body]
            )
            slack = sum(float(np.linalg.norm(model.jnt_pos[joint])) for joint in joints)
            for joint in joints:
                slides = model.jnt_type[joint] == self._slide
                rate = 1.0 if slides else length + slack
                if joint in kinematics.joint_ids:
                    reach[kinematics.joint_ids.index(joint)] += rate
                for dependent, source, _, polynomial in kinematics.coupled:
                    if model.jnt_qposadr[joint] == dependent:
                        slope = np.abs(np.polyder(polynomial)).sum()
                        reach[source] += rate * slope
            slid = sum(
                float(np.abs(model.jnt_range[joint]).max())
                for joint in joints
                if model.jnt_type[joint] == self._slide
            )
            length += float(np.linalg.norm(model.body_pos[body])) + slack + slid
            body = int(model.body_parentid[body])
        return reach
