"""Planar pushing of a T in closed form: what a push does, which two pushes come closest, the way.

Without friction at the contact a push acts along the contact's normal. Where friction with the
table is an ellipsoid with ratio g² (m²) of torque to force, the block then turns about a point that
is fixed in the block: a disk that stays at one contact moves it on a circle (Lynch and Mason,
"Stable Pushing", IJRR 1996). So a plan is a sequence of contacts and of distances to push there.
All of this is compiled and looks at one block.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genpolicy_sim.jit import njit
from genpolicy_sim.push_t import BAR, PUSHER_RADIUS, STEM, relative_pose

Array = NDArray[np.float64]

GYRATION = 0.0019316  # m², the T's squared radius of gyration, as in assets/push_t.xml
ANGLE_WEIGHT = 0.06  # m per rad: an error in yaw uncovers as much as this one in position
LEVELS = np.array([0.1, 0.25, 0.45, 0.65, 0.85, 1.05, 1.35, 1.75])  # pushes tried, of the error
TRAVEL_PRICE = 0.2  # of the present error for one metre on the way to a contact
RING = 0.01  # m between pusher and block on the way
TOUCHING = 0.003  # m between pusher and block that is still free
REACH = 0.254  # m, half the extent of where the pusher goes
BLOCK_REACH = 0.19  # m, half the extent of where the block may be


class Pushes(NamedTuple):
    """Two pushes: contacts, and metres that the contact moves."""

    first: int
    second: int
    first_m: float
    second_m: float
    error: float  # m, what remains afterwards


def contacts(spacing: float = 0.012, edge: float = 0.004) -> Array:
    """Points on the outline of the T that the pusher can touch, and their normals, ``[M, 4]``."""
    bar, stem, inner = BAR, STEM, STEM[2] + PUSHER_RADIUS
    sides = [  # from, to, normal
        ((bar[0], bar[3]), (bar[2], bar[3]), (0.0, 1.0)),
        ((bar[2], bar[1]), (bar[2], bar[3]), (1.0, 0.0)),
        ((bar[0], bar[1]), (bar[0], bar[3]), (-1.0, 0.0)),
        ((inner, bar[1]), (bar[2], bar[1]), (0.0, -1.0)),
        ((bar[0], bar[1]), (-inner, bar[1]), (0.0, -1.0)),
        ((stem[2], stem[1]), (stem[2], bar[1] - PUSHER_RADIUS), (1.0, 0.0)),
        ((stem[0], stem[1]), (stem[0], bar[1] - PUSHER_RADIUS), (-1.0, 0.0)),
        ((stem[0], stem[1]), (stem[2], stem[1]), (0.0, -1.0)),
    ]
    rows = []
    for a, b, normal in sides:
        start, end = np.array(a), np.array(b)
        length = np.linalg.norm(end - start)
        count = max(2, round((length - 2 * edge) / spacing) + 1)
        along = np.linspace(edge, length - edge, count)[:, None] / length
        rows += [[*point, *normal] for point in start + (end - start) * along]
    return np.array(rows)


def ring() -> Array:
    """Corners of the way round the T ``[8, 2]``, counter-clockwise, in its frame."""
    d = PUSHER_RADIUS + RING
    right = [
        (STEM[2] + d, STEM[1] - d),
        (STEM[2] + d, BAR[1] - d),
        (BAR[2] + d, BAR[1] - d),
        (BAR[2] + d, BAR[3] + d),
    ]
    return np.array(right + [(-x, y) for x, y in reversed(right)])


CONTACTS, CORNERS = contacts(), ring()
NUM_CONTACTS = len(CONTACTS)


@njit(nogil=True, cache=True)
def pushed(pose: Array, contact: Array, distance: float) -> tuple[float, float, float]:
    """x, y and yaw after the pusher moved ``distance`` (m) along the normal of a contact."""
    px, py, nx, ny = contact
    arm = py * nx - px * ny
    moved = distance / (1.0 + arm * arm / GYRATION)
    turn = moved * arm / GYRATION
    if abs(turn) < 1e-6:
        straight, aside = 1.0, 0.5 * turn
    else:
        straight, aside = np.sin(turn) / turn, (1.0 - np.cos(turn)) / turn
    vx, vy = -nx * moved, -ny * moved
    bx, by = straight * vx - aside * vy, aside * vx + straight * vy
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    return pose[0] + cos * bx - sin * by, pose[1] + sin * bx + cos * by, pose[2] + turn


@njit(nogil=True, cache=True)
def error(pose: Array, goal: Array) -> float:
    """Distance of two poses, m."""
    turn = (pose[2] - goal[2] + np.pi) % (2.0 * np.pi) - np.pi
    dx, dy = pose[0] - goal[0], pose[1] - goal[1]
    return np.sqrt(dx * dx + dy * dy + (ANGLE_WEIGHT * turn) ** 2)


@njit(nogil=True, cache=True)
def in_world(pose: Array, x: float, y: float) -> tuple[float, float]:
    """A point of the block's frame in the world's."""
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    return pose[0] + cos * x - sin * y, pose[1] + sin * x + cos * y


@njit(nogil=True, cache=True)
def pusher_at(pose: Array, contact: Array, gap: float) -> tuple[float, float]:
    """Where the pusher is when it is ``gap`` away from touching a contact."""
    out = PUSHER_RADIUS + gap
    return in_world(pose, contact[0] + out * contact[2], contact[1] + out * contact[3])


@njit(nogil=True, cache=True)
def before(contact: Array) -> tuple[float, float]:
    """The place on the way round from which a push begins, in the block's frame."""
    out = PUSHER_RADIUS + RING
    return contact[0] + out * contact[2], contact[1] + out * contact[3]


@njit(nogil=True, cache=True)
def reachable(pose: Array, contact: Array) -> bool:
    """Whether the pusher gets there and the block is where it may be."""
    x, y = pusher_at(pose, contact, RING)
    near = max(abs(x), abs(y)) < REACH
    return near and max(abs(pose[0]), abs(pose[1])) < BLOCK_REACH


@njit(nogil=True, cache=True)
def composed(pose: Array, move: Array, out: Array) -> None:
    """Write where a ``move`` in the block's frame takes it."""
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    out[0] = pose[0] + cos * move[0] - sin * move[1]
    out[1] = pose[1] + sin * move[0] + cos * move[1]
    out[2] = pose[2] + move[2]


@njit(nogil=True, cache=True)
def moves(scale: float) -> Array:
    """What each contact and level of pushing does, in the block's frame, ``[M, levels, 3]``."""
    table, origin = np.empty((CONTACTS.shape[0], LEVELS.shape[0], 3)), np.zeros(3)
    for m in range(table.shape[0]):
        for level in range(table.shape[1]):
            x, y, yaw = pushed(origin, CONTACTS[m], scale * LEVELS[level])
            table[m, level, 0], table[m, level, 1], table[m, level, 2] = x, y, yaw
    return table


@njit(nogil=True, cache=True)
def best_pair(pose: Array, goal: Array, travel: Array, between: Array, taste: Array) -> Pushes:
    """The two pushes that together come closest to the goal, with regard for the ways to them.

    Args:
        pose: x, y, yaw of the block.
        goal: x, y, yaw.
        travel: ``[M]`` m to each contact.
        between: ``[M, M]`` m from each contact to each.
        taste: ``[M]`` factors of what a contact costs.
    """
    now = error(pose, goal)
    table, wanted, after = moves(now), np.empty(3), np.empty(3)
    best, found = np.inf, Pushes(0, 0, 0.0, 0.0, now)
    for a in range(CONTACTS.shape[0]):
        if not reachable(pose, CONTACTS[a]):
            continue
        for i in range(LEVELS.shape[0]):
            composed(pose, table[a, i], after)
            if not reachable(after, CONTACTS[a]):
                break
            wanted[:] = relative_pose(goal, after)
            for b in range(CONTACTS.shape[0]):
                price = TRAVEL_PRICE * now * (travel[a] + between[a, b])
                if taste[a] * price >= best:
                    continue
                for j in range(LEVELS.shape[0]):
                    remains = error(table[b, j], wanted)
                    if taste[a] * (remains + price) < best and reachable(after, CONTACTS[b]):
                        best = taste[a] * (remains + price)
                        found = Pushes(a, b, LEVELS[i] * now, LEVELS[j] * now, remains)
    return found


@njit(nogil=True, cache=True)
def refined(pose: Array, goal: Array, plan: Pushes, rounds: int) -> Pushes:
    """The same two contacts with the best distances near the plan's: pattern search."""
    a, b = CONTACTS[plan.first], CONTACTS[plan.second]
    u, v, best = plan.first_m, plan.second_m, np.inf
    step = 0.25 * (u + v) + 1e-4
    middle, last = np.empty(3), np.empty(3)
    for _ in range(rounds):
        centre_u, centre_v = u, v
        for i in range(-2, 3):
            for j in range(-2, 3):
                try_u, try_v = max(centre_u + i * step, 0.0), max(centre_v + j * step, 0.0)
                middle[0], middle[1], middle[2] = pushed(pose, a, try_u)
                last[0], last[1], last[2] = pushed(middle, b, try_v)
                remains = error(last, goal)
                if remains < best:
                    best, u, v = remains, try_u, try_v
        step *= 0.5
    return Pushes(plan.first, plan.second, u, v, best)


# ---------------------------------------------------------------- the way round the block


@njit(nogil=True, cache=True)
def gap(x: float, y: float) -> float:
    """Between a pusher at (x, y) in the block's frame and the block, m; negative: overlap."""
    nearest = np.inf
    for part in (BAR, STEM):
        dx = max(part[0] - x, x - part[2], 0.0)
        dy = max(part[1] - y, y - part[3], 0.0)
        nearest = min(nearest, np.hypot(dx, dy))
    return nearest - PUSHER_RADIUS


@njit(nogil=True, cache=True)
def free(ax: float, ay: float, bx: float, by: float) -> bool:
    """Whether the pusher can go straight from a to b, in the block's frame."""
    count = int(np.hypot(bx - ax, by - ay) / 0.005) + 1
    for k in range(count + 1):
        share = k / count
        if gap(ax + share * (bx - ax), ay + share * (by - ay)) < TOUCHING:
            return False
    return True


@njit(nogil=True, cache=True)
def ring_length() -> float:
    """Of the way round, m."""
    total = 0.0
    for k in range(8):
        dx, dy = CORNERS[(k + 1) % 8] - CORNERS[k]
        total += abs(dx) + abs(dy)
    return total


@njit(nogil=True, cache=True)
def on_ring(place: float) -> tuple[float, float]:
    """The point ``place`` metres along the way round."""
    left = place % ring_length()
    for k in range(8):
        a, b = CORNERS[k], CORNERS[(k + 1) % 8]
        length = abs(b[0] - a[0]) + abs(b[1] - a[1])
        if left <= length:
            share = left / length
            return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])
        left -= length
    return CORNERS[0, 0], CORNERS[0, 1]


@njit(nogil=True, cache=True)
def nearest_on_ring(x: float, y: float) -> float:
    """Where on the way round is closest to (x, y), m along it."""
    best, place, begin = np.inf, 0.0, 0.0
    for k in range(8):
        a, b = CORNERS[k], CORNERS[(k + 1) % 8]
        dx, dy = b[0] - a[0], b[1] - a[1]
        length = abs(dx) + abs(dy)
        share = min(max(((x - a[0]) * dx + (y - a[1]) * dy) / (length * length), 0.0), 1.0)
        distance = np.hypot(a[0] + share * dx - x, a[1] + share * dy - y)
        if distance < best:
            best, place = distance, begin + share * length
        begin += length
    return place


def ways_between() -> Array:
    """The shorter way round from each contact to each, ``[M, M]`` m."""
    places = np.array([nearest_on_ring(*before(contact)) for contact in CONTACTS])
    apart = np.abs(places[:, None] - places)
    return np.minimum(apart, ring_length() - apart)
