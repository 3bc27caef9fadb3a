"""Another arm, moved by hand, leads the robot joint by joint.

The person engages by moving the leader and lets go by holding it still. From there on, the robot
moves by what the leader has moved since: it never jumps, wherever the two arms were.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from genpolicy.spec import GenpolicyError, TaskSpec
from genpolicy_deploy.leaders.base import KEYS, Action, Leader, Vector
from genpolicy_deploy.leaders.leader_file import load_leader, reading_dtype
from genpolicy_deploy.link import Link

CONNECT_TIMEOUT_S = 30.0
SILENCE_S = 1.0  # an arm that has told nothing for so long is gone
MOVED = 0.03  # rad (m): so far from where it rested, it is being moved
STILL = 0.01  # rad (m): what moves less than this ...
REST_S = 1.0  # ... for so long is at rest


class ArmLeader(Leader):
    """Args: see ``Leader``; ``config`` is the leader's TOML file, as of any arm.

    Raises:
        GenpolicyError: the task moves no joints, or others than the leader has.
    """

    help = f"move the leader arm; hold it still for {REST_S:g} s to let go. In the terminal, {KEYS}"

    def __init__(self, task: TaskSpec, config: Path) -> None:
        super().__init__(task)
        if task.control_mode != "joint_position":
            raise GenpolicyError(
                f"a leader arm moves joints, and the actions of control_mode '{task.control_mode}' "
                "do not: use --leader keyboard or gamepad"
            )
        joints = load_leader(config).joints
        missing = [name for name in task.action.names if name not in joints]
        if missing:
            raise GenpolicyError(f"{config}: joint '{missing[0]}' of the robot is not in joints")
        self._order = [joints.index(name) for name in task.action.names]
        self._name = f"leader arm {config}"
        args = ["--config", str(config)]
        self._link = Link(self._name, "genpolicy_deploy.leaders.arm_reader", args)
        self._message = np.zeros(1, reading_dtype(len(joints)))
        self._bytes = self._message.view(np.uint8).data
        self._position = np.zeros(len(self._order))
        self._rest = np.zeros(len(self._order))  # where it was when it last rested
        self._still_since = 0
        self._offset: Vector | None = None  # of the robot's goal from the leader
        self._waits = True  # for the first reading after ``let_go``

    def connect(self) -> None:
        """See ``Leader``."""
        self._link.start()
        try:
            hello = json.loads(bytes(self._link.wait(CONNECT_TIMEOUT_S, "greeting")))
            if "error" in hello:
                raise GenpolicyError(f"{self._name}: {hello['error']}")
            self._read(self._link.wait(CONNECT_TIMEOUT_S, "measurement"))
        except BaseException:
            self.close()
            raise

    def let_go(self) -> None:
        """See ``Leader``."""
        super().let_go()
        self._offset, self._waits = None, True

    def poll(self, now_ns: int) -> None:
        """See ``Leader``."""
        message = self._link.receive_newest()
        if message is not None:
            self._read(message)
        if now_ns - int(self._message["t_ns"][0]) > SILENCE_S * 1e9:
            raise GenpolicyError(f"{self._name}: no measurement for {SILENCE_S:g} s")
        if self._waits:
            self._waits, self._rest = False, self._position.copy()
        distance = float(np.abs(self._position - self._rest).max())
        if not self.steers:
            self.steers = distance > MOVED
        if distance > STILL and self.steers:
            self._rest[:] = self._position
            self._still_since = now_ns
        elif self.steers and now_ns - self._still_since > REST_S * 1e9:
            self.let_go()

    def _read(self, message: memoryview) -> None:
        if len(message) != len(self._bytes):  # its last words
            raise GenpolicyError(f"{self._name}: {json.loads(bytes(message)).get('error')}")
        self._bytes[:] = message
        self._position[:] = self._message["position"][0, self._order]

    def action(self, command: Vector) -> Action:
        """See ``Leader``: where the robot's joints were, and what the leader has moved since."""
        if self._offset is None:
            self._offset = command - self._position
        self._action[:] = self._position + self._offset
        return self._action

    def close(self) -> None:
        """See ``Leader``; the arm stays limp."""
        self._link.close()
