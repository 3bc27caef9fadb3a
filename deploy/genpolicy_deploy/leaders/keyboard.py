"""The keyboard of the terminal: every press is one control step in one direction."""

from __future__ import annotations

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.leaders.base import KEYS, Action, HandLeader, Vector

STEP = 0.4  # of a full action; with shift, a full one
# A terminal tells of presses only, and repeats a key that is held after a while.
AXES = {"w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "r": (2, 1), "f": (2, -1)}
AXES |= {"u": (3, 1), "o": (3, -1), "i": (4, 1), "k": (4, -1), "j": (5, 1), "l": (5, -1)}


class Keyboard(HandLeader):
    """Keys come from ``EmergencyStop``, which reads the terminal (space and escape are its own)."""

    help = (
        "w s: forward, back; a d: left, right; r f: up, down; u o, i k, j l: turn about x, y, z; "
        f"with shift: faster; g: gripper; {KEYS}"
    )

    def check_terminal(self, there: bool) -> None:
        """See ``Leader``."""
        if not there:
            raise GenpolicyError("--leader keyboard needs a terminal: its standard input is none")

    def _pressed(self, key: str) -> None:
        if key == "g":
            self.toggle_gripper()
        elif key.lower() in AXES:
            axis, sign = AXES[key.lower()]
            self._push[axis] += sign * (STEP if key.islower() else 1.0)
            self.steers = True

    def action(self, command: Vector) -> Action:
        """See ``Leader``: what was pressed since the last one."""
        action = super().action(command)
        self._push[:] = 0.0
        return action
