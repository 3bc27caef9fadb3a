"""What the loop and the arm's process say to each other: one whole message each, fixed layout.

Every message begins with its kind in eight bytes. Down go ``goal``, ``hold``, ``start`` (an episode
begins: go home, rest) and ``stop``; up come ``state`` after every exchange with the arm, ``fault``
(a sentence) and, last of all, ``stopped`` (why). Before that, the configuration goes down as JSON
and a greeting comes up as JSON: a description, or ``error`` in one sentence.
"""

from __future__ import annotations

import numpy as np

KIND = 8
GOAL, HOLD, START, STOP = b"goal", b"hold", b"start", b"stop"
STATE, FAULT, STOPPED = b"state", b"fault", b"stopped"
MAX_TEXT = 480  # bytes of a sentence


def goal_dtype(axes: int) -> np.dtype:
    """Down. ``goal`` is used by that kind only; ``episode`` by ``start``."""
    return np.dtype(
        [
            ("kind", f"S{KIND}"),
            ("seq", "<i8"),
            ("t_ns", "<i8"),  # CLOCK_MONOTONIC when it was sent
            ("episode", "<i8"),
            ("goal", "<f8", (axes,)),
        ]
    )


def state_dtype(axes: int, joints: int, effort: int) -> np.dtype:
    """Up. Measured: ``t_ns, position, hand, joints, velocity, effort``."""
    return np.dtype(
        [
            ("kind", f"S{KIND}"),
            ("seq", "<i8"),  # of the measurement
            ("t_ns", "<i8"),  # when it was taken, CLOCK_MONOTONIC
            ("goal_seq", "<i8"),  # of the goal that is pursued
            ("episode", "<i8"),  # the newest that began
            ("holding", "<i8"),  # 1 while it brakes or rests without a goal
            ("ignored", "<i8"),  # goals that came too late
            ("blocked", "<i8"),  # joint commands that the joint envelope altered
            ("position", "<f8", (axes,)),
            ("hand", "<f8", (6,)),  # zeros without a model
            ("joints", "<f8", (joints,)),
            ("velocity", "<f8", (joints,)),
            ("effort", "<f8", (effort,)),
            ("command", "<f8", (joints,)),  # sent to the driver
        ]
    )


def text_message(kind: bytes, sentence: str) -> bytes:
    """A ``fault`` or ``stopped`` message."""
    return kind.ljust(KIND, b"\0") + sentence.encode()[:MAX_TEXT]


def message_kind(message: memoryview) -> bytes:
    """The kind of a message."""
    return bytes(message[:KIND]).rstrip(b"\0")


def message_text(message: memoryview) -> str:
    """The sentence of a ``fault`` or ``stopped`` message."""
    return bytes(message[KIND:]).decode(errors="replace")
