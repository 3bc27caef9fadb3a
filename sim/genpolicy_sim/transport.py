"""Two Pandas carry a hammer between bins and clear its goal of trash (robosuite's TwoArmTransport).

The first takes the lid off the start bin and hands the hammer over; the second empties the target
bin into the trash bin and puts the hammer there.
"""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import Feature, VecEnv
from genpolicy_sim import robosuite_task
from genpolicy_sim.osc import Array
from genpolicy_sim.quaternions import XYZW, multiply, rotate, upper, yaw
from genpolicy_sim.rendering import View
from genpolicy_sim.robosuite_task import MODEL_SEED, Scene, TaskSim, arms_at_rest, put

DRAW_DIM = 14 + 9  # random numbers in an initial state
SPREAD = 0.005  # m, half the extent in x and y of where a bin starts
TABLES = np.array([-0.45, 0.45])  # m, their middles in y
BIN_X = 0.2  # m, from a table's middle
# m, heights at the start: 0.8 for the tables, 0.001 to fall, then the objects' own.
BIN_HEIGHT = 0.8 + 0.001 + 0.075
LID_HEIGHT = 0.8 + 0.001 + 0.02 + 0.15
HAMMER_HEIGHT = 0.8 + 0.001 + 0.015 + 0.01
TRASH_HEIGHT = 0.8 + 0.001 + 0.02 + 0.01
HAMMER_TURN, TRASH_TURN = np.pi / 6, 0.3 * np.pi  # rad, half the range of their orientations
# wxyz, either way round
HAMMER_LYING = np.array([[0.0, 0.0, -1.0, 1.0], [0.0, 0.0, -1.0, -1.0]]) / 2**0.5
# What is in its bin touches the bin's floor. Sensors, because contacts are lost between calls.
SENSORS = """<sensor>
  <contact name="hammer_in_bin" data="found" body1="payload_root"
           geom2="transport_target_bin_base"/>
  <contact name="trash_in_bin" data="found" body1="trash_main" geom2="transport_trash_bin_base"/>
</sensor></mujoco>"""


@cache
def scene() -> Scene:
    """Build the scene with robosuite, once per process; two sensors are added."""
    env = TransportSim.robosuite_env(seed=MODEL_SEED)
    xml = env.model.get_xml().replace("</mujoco>", SENSORS)
    return replace(robosuite_task.scene_of(env), model=mujoco.MjModel.from_xml_string(xml))


def draw(rng: np.random.Generator, count: int) -> Array:
    """Random numbers ``[count, DRAW_DIM]`` that encode initial states."""
    return np.hstack([rng.standard_normal((count, 14)), rng.uniform(-1.0, 1.0, (count, 9))])


def initial_qpos(draws: Array) -> Array:
    """Initial joint positions ``[n, nq]``, distributed as robosuite's.

    Gaussian noise on both postures; three bins in about the same places; the hammer in the start
    bin under its lid, its head on either side, and the trash in the target bin, each with a uniform
    turn.
    """
    qpos, model = arms_at_rest(scene(), draws[:, :14]), scene().model
    at, still = SPREAD * draws[:, 14:20].reshape(-1, 3, 2), yaw(np.zeros(len(draws)))
    start, target, trash = (at[:, i] + np.array(middle) for i, middle in enumerate(_bin_middles()))
    lying = HAMMER_LYING[(draws[:, 22] > 0.0).astype(np.intp)]
    hammer = multiply(yaw(0.5 * HAMMER_TURN * draws[:, 20]), lying)
    turned = yaw(0.5 * TRASH_TURN * draws[:, 21])
    for joint, middle, height, quat in (
        ("payload_joint0", start, HAMMER_HEIGHT, hammer),
        ("trash_joint0", target, TRASH_HEIGHT, turned),
        ("transport_start_bin_joint0", start, BIN_HEIGHT, still),
        ("transport_target_bin_joint0", target, BIN_HEIGHT, still),
        ("transport_trash_bin_joint0", trash, BIN_HEIGHT, still),
        ("transport_start_bin_lid_joint0", start, LID_HEIGHT, still),
    ):
        put(qpos, model, joint, middle, height, quat)
    return qpos


def _bin_middles() -> tuple[tuple[float, float], ...]:
    """Mean places of start, target and trash bin, x and y in m."""
    return (BIN_X, TABLES[0]), (-BIN_X, TABLES[1]), (BIN_X, TABLES[1])


class TransportSim(TaskSim):
    """N Transport scenes without episodes."""

    name = "transport"
    robosuite_name = "TwoArmTransport"
    num_arms = 2
    max_episode_steps = 800
    objects = Feature("object", (41,), "m, xyzw, flags")
    camera = View((0.1, 0.0, 1.0), distance=2.0, azimuth=180.0, elevation=-35.0)
    draw_dim = DRAW_DIM
    draw = staticmethod(draw)
    scene = staticmethod(scene)

    def __init__(self, num_envs: int, num_threads: int | None = None) -> None:
        super().__init__(num_envs, num_threads)
        model = self.model
        self._hammer, self._trash = model.body("payload_root").id, model.body("trash_main").id
        self._sensors = [model.sensor(n).adr[0] for n in ("hammer_in_bin", "trash_in_bin")]
        self._lid = model.geom("transport_start_bin_lid_handle").id
        bases = "transport_target_bin_base", "transport_trash_bin_base"
        self._bins = [model.geom(name).id for name in bases]

    def initial_qpos(self, draws: Array) -> Array:
        """Joint positions ``[n, nq]``."""
        return initial_qpos(draws)

    def observe_objects(self, out: Array) -> None:
        """Poses of hammer, trash and lid, places of the bins, what is in them, ways to go."""
        report = self.report
        hammer, trash = report.xpos[:, self._hammer], report.xpos[:, self._trash]
        lid, lid_quat = self._geom_pose(self._lid)
        first, second = (report.site_xpos[:, arm.site] for arm in self.arms)
        parts = (
            *(hammer, upper(report.xquat[:, self._hammer])[:, XYZW]),
            *(trash, upper(report.xquat[:, self._trash])[:, XYZW]),
            *(lid, upper(lid_quat)[:, XYZW]),
            *(self._geom_pose(base)[0] for base in self._bins),
            self._in_bins(),
            *(hammer - first, lid - first, hammer - second, trash - second),
        )
        np.concatenate(parts, axis=1, out=out)

    def success(self) -> NDArray[np.bool_]:
        """``[N]`` whether the hammer is in the target bin and the trash in the trash bin."""
        return self._in_bins().all(axis=1)

    def _in_bins(self) -> NDArray[np.bool_]:
        """``[N, 2]`` whether hammer and trash touch the floors of their bins."""
        return self.report.sensordata[:, self._sensors] > 0

    def _geom_pose(self, geom: int) -> tuple[Array, Array]:
        """Position ``[N, 3]`` and quaternion wxyz ``[N, 4]`` of a part of a body."""
        model, body = self.model, self.model.geom_bodyid[geom]
        pos, quat = self.report.xpos[:, body], self.report.xquat[:, body]
        return pos + rotate(quat, model.geom_pos[geom]), multiply(quat, model.geom_quat[geom])


def make(num_envs: int, **options: Any) -> VecEnv:
    """Factory of the entry point ``transport``; options as ``robosuite_task.make``."""
    return robosuite_task.make(TransportSim, num_envs, **options)
