"""Gymnasium's v5 locomotion tasks, rule for rule: hopper, walker2d, halfcheetah and ant.

Scenes are Gymnasium's own files. Observations, rewards, terminations and the distribution of
initial states are those of ``Hopper-v5``, ``Walker2d-v5``, ``HalfCheetah-v5`` and ``Ant-v5`` with
their default arguments, to the last bit (``locomotion_rules``). Episodes last at most 1000 control
steps. The control mode is ``actuator``: an action is what the motors get, in [-1, 1], held for one
control step; a unit is the motor's full torque.
"""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import mujoco
import numpy as np

from genpolicy.spec import ActionSpec, Feature, TaskSpec, VecEnv
from genpolicy_sim.compiled_sim import CompiledTask, Initial, compiled_env
from genpolicy_sim.episodes import Array
from genpolicy_sim.locomotion_rules import Ant, Runner, run_ant, run_runner

EPISODE_STEPS = 1000


@cache
def load_model(name: str) -> mujoco.MjModel:
    """Compile a scene of the installed Gymnasium, once per process."""
    path = files("gymnasium").joinpath("envs", "mujoco", "assets", name)
    return mujoco.MjModel.from_xml_path(str(path))


def draw(
    rng: np.random.Generator, count: int, nq: int, nv: int, noise: float, normal: bool
) -> Array:
    """Deviations ``[count, nq + nv]`` from the scene's initial state.

    Positions are uniform within ``noise``; velocities, too, or normal with that deviation.
    """
    position = rng.uniform(-noise, noise, (count, nq))
    if normal:
        return np.hstack([position, noise * rng.standard_normal((count, nv))])
    return np.hstack([position, rng.uniform(-noise, noise, (count, nv))])


def initial(draws: Array, rest: Array) -> Initial:
    """The initial states; the memory is where they are."""
    qpos = rest + draws[:, : len(rest)]
    return Initial(qpos, draws[:, len(rest) :], qpos[:, :1])


def task_spec(name: str, robot: str, task: CompiledTask) -> TaskSpec:
    """What a task observes and commands."""
    model = task.model
    joints = [model.joint(int(j)).name for j in model.actuator_trnid[:, 0]]
    return TaskSpec(
        task=name,
        robot=robot,
        observations=(Feature("observation", (task.obs_dim,), "m, rad, m/s, rad/s"),),
        action=ActionSpec(
            names=tuple(joints),
            units=tuple(f"{gear:g} N m" for gear in model.actuator_gear[:, 0]),
            low=tuple(model.actuator_ctrlrange[:, 0].tolist()),
            high=tuple(model.actuator_ctrlrange[:, 1].tolist()),
        ),
        control_mode="actuator",
        control_hz=1.0 / (model.opt.timestep * task.substeps),
        max_episode_steps=EPISODE_STEPS,
        versions={package: version(package) for package in ("mujoco", "gymnasium")},
        score="return",
    )


def compiled(
    model: mujoco.MjModel,
    substeps: int,
    run: Callable[..., None],
    constants: Runner | Ant,
    obs_dim: int,
    noise: float,
    normal: bool,
) -> CompiledTask:
    """A task as the engine takes it."""
    return CompiledTask(
        model=model,
        substeps=substeps,
        run=run,
        constants=constants,
        obs_dim=obs_dim,
        action_dim=model.nu,
        draw=partial(draw, nq=model.nq, nv=model.nv, noise=noise, normal=normal),
        draw_dim=model.nq + model.nv,
        initial=partial(initial, rest=model.qpos0),
        memo_dim=1,
        camera="track",
    )


def runner(scene: str, substeps: int, noise: float, normal: bool, **constants: Any) -> CompiledTask:
    """A planar runner."""
    model = load_model(scene)
    c = Runner(dt=model.opt.timestep * substeps, **constants)
    obs_dim = model.nq - 1 + model.nv
    return compiled(model, substeps, run_runner, c, obs_dim, noise, normal)


ANY = (-np.inf, np.inf)


def hopper_task() -> CompiledTask:
    """Hopper-v5."""
    return runner(
        "hopper.xml", 4, 5e-3, False, ctrl_cost=1e-3, healthy_reward=1.0,
        height=(0.7, np.inf), pitch=(-0.2, 0.2), state_limit=100.0, velocity_limit=10.0,
    )  # fmt: skip


def walker2d_task() -> CompiledTask:
    """Walker2d-v5."""
    return runner(
        "walker2d_v5.xml", 4, 5e-3, False, ctrl_cost=1e-3, healthy_reward=1.0,
        height=(0.8, 2.0), pitch=(-1.0, 1.0), state_limit=np.inf, velocity_limit=10.0,
    )  # fmt: skip


def halfcheetah_task() -> CompiledTask:
    """HalfCheetah-v5, which neither falls nor is rewarded for not doing so."""
    return runner(
        "half_cheetah.xml", 5, 0.1, True, ctrl_cost=0.1, healthy_reward=0.0,
        height=ANY, pitch=ANY, state_limit=np.inf, velocity_limit=np.inf,
    )  # fmt: skip


def ant_task() -> CompiledTask:
    """Ant-v5."""
    model, substeps = load_model("ant.xml"), 5
    c = Ant(
        torso=1,
        dt=model.opt.timestep * substeps,
        ctrl_cost=0.5,
        contact_cost=5e-4,
        contact_limit=1.0,
        healthy_reward=1.0,
        height=(0.2, 1.0),
    )
    obs_dim = model.nq - 2 + model.nv + 6 * (model.nbody - 1)
    return compiled(model, substeps, run_ant, c, obs_dim, 0.1, True)


def make(
    name: str, robot: str, build: Callable[[], CompiledTask], num_envs: int, **options: Any
) -> VecEnv:
    """Factory of the entry points; options as in ``compiled_env``."""
    task = build()
    return compiled_env(task, task_spec(name, robot, task), num_envs, **options)


hopper = partial(make, "hopper", "Hopper", hopper_task)
walker2d = partial(make, "walker2d", "Walker2d", walker2d_task)
halfcheetah = partial(make, "halfcheetah", "HalfCheetah", halfcheetah_task)
ant = partial(make, "ant", "Ant", ant_task)
