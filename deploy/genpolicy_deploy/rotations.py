"""Rotation vectors (axis times angle, rad) as plain floats: composition and continuity."""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = tuple[float, float, float]


def compose(left: Sequence[float], right: Sequence[float]) -> Vector:
    """Rotation vector of "first ``right``, then ``left``", with an angle of at most pi."""
    w1, x1, y1, z1 = quaternion(left)
    w2, x2, y2, z2 = quaternion(right)
    w = w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2
    x = w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2
    y = w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2
    z = w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2
    sine = math.hypot(x, y, z)
    if w < 0.0:  # the same rotation with the shorter angle
        w, x, y, z = -w, -x, -y, -z
    # angle/sin(angle/2), which tends to 2
    scale = 2.0 if sine < 1e-12 else 2.0 * math.atan2(sine, w) / sine
    return x * scale, y * scale, z * scale


def nearest(rotvec: Sequence[float], reference: Sequence[float]) -> Vector:
    """The rotation vector of the same rotation that lies closest to ``reference``.

    Rotation vectors repeat every full turn about their axis. Choosing the closest keeps a
    command continuous where the angle passes pi.
    """
    x, y, z = rotvec
    angle = math.hypot(x, y, z)
    if not 1e-12 < angle < 1e6:  # no rotation, or nothing that rotations are made of
        return x, y, z
    along = (x * reference[0] + y * reference[1] + z * reference[2]) / angle
    turns = round((along - angle) / (2.0 * math.pi))
    if turns == 0:
        return x, y, z
    scale = 1.0 + turns * 2.0 * math.pi / angle
    return x * scale, y * scale, z * scale


def quaternion(rotvec: Sequence[float]) -> tuple[float, float, float, float]:
    """The unit quaternion wxyz of a rotation vector."""
    x, y, z = rotvec
    angle = math.hypot(x, y, z)
    # sin(angle/2)/angle, which tends to 1/2
    scale = 0.5 if angle < 1e-12 else math.sin(0.5 * angle) / angle
    return math.cos(0.5 * angle), x * scale, y * scale, z * scale
