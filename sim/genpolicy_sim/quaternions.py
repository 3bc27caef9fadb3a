"""Quaternions wxyz, MuJoCo's order, for many at once: ``[..., 4]``, any leading axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

XYZW = [1, 2, 3, 0]  # columns of a quaternion wxyz in robosuite's order


def conjugate(q: Array) -> Array:
    """The opposite rotation of unit quaternions."""
    return q * np.array([1.0, -1.0, -1.0, -1.0])


def multiply(p: Array, q: Array) -> Array:
    """The Hamilton product: first ``q``, then ``p``."""
    pw, pv, qw, qv = p[..., :1], p[..., 1:], q[..., :1], q[..., 1:]
    scalar = pw * qw - (pv * qv).sum(axis=-1, keepdims=True)
    return np.concatenate([scalar, pw * qv + qw * pv + np.cross(pv, qv)], axis=-1)


def rotate(q: Array, vector: Array) -> Array:
    """Vectors ``[..., 3]`` rotated by unit quaternions."""
    twice = 2.0 * np.cross(q[..., 1:], vector)
    return vector + q[..., :1] * twice + np.cross(q[..., 1:], twice)


def upper(q: Array) -> Array:
    """Of the two quaternions of each rotation, the one whose w is not negative."""
    return np.where(q[..., :1] < 0.0, -q, q)


def yaw(half_angle: Array) -> Array:
    """Rotations ``[n, 4]`` about z by twice ``half_angle [n]``, rad."""
    zero = np.zeros_like(half_angle)
    return np.stack([np.cos(half_angle), zero, zero, np.sin(half_angle)], axis=-1)
