"""Offscreen pictures of simulation states, on machines without a screen."""

# MuJoCo's names come from a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import copy
import importlib
import os
import subprocess
import sys
from functools import cache
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from genpolicy.spec import GenpolicyError

BACKENDS = ("egl", "osmesa")
MAX_GEOMS = 2000


class View(NamedTuple):
    """A camera that is not in the model."""

    lookat: tuple[float, float, float]  # m
    distance: float  # m
    azimuth: float  # degrees
    elevation: float  # degrees


@cache
def backend() -> str:
    """The OpenGL library that works here, ``MUJOCO_GL``'s first.

    Raises:
        GenpolicyError: none does.
    """
    wanted = os.environ.get("MUJOCO_GL", "")
    for name in sorted(BACKENDS, key=lambda name: name != wanted):
        # In another process, since a missing driver may abort instead of raising.
        program = f"from genpolicy_sim.rendering import probe; probe({name!r})"
        if subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0:
            return name
    raise GenpolicyError(
        "no OpenGL for offscreen rendering: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri "
        "(or libosmesa6), or go on without videos"
    )


def probe(name: str) -> None:
    """Render a picture with OpenGL library ``name``, or fail in whatever way it fails."""
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><light pos='0 0 2'/><geom size='.2'/></worldbody></mujoco>"
    )
    with Renderer(model, 16, 16, gl=name) as renderer:
        assert renderer.render(np.zeros(0), View((0, 0, 0), 1, 0, -30)).any()


class Renderer:
    """Draws states of one model; a context manager.

    Shadows, reflections and multisampling are off: software rendering is four times as fast.

    Args:
        model: the scene.
        width: pixels.
        height: pixels.
        gl: OpenGL library; default the one that works.
    """

    def __init__(
        self, model: mujoco.MjModel, width: int, height: int, gl: str | None = None
    ) -> None:
        library = importlib.import_module(f"mujoco.{gl or backend()}")
        self._model, self._data = model, mujoco.MjData(model)
        self._rect = mujoco.MjrRect(0, 0, width, height)
        model.vis.quality.offsamples = 0  # read when the context is made
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        self._gl: Any = library.GLContext(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._option = mujoco.MjvOption()
        if model.ngeom and (model.geom_group == 1).any():
            self._option.geomgroup[0] = 0  # robosuite: 0 collides, 1 is seen
            self._option.sitegroup[:] = 0

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.free()
        self._gl.free()

    def render(self, qpos: ArrayLike, camera: str | View) -> NDArray[np.uint8]:
        """Picture ``[H, W, 3]`` of the state with joint positions ``qpos [nq]``.

        Args:
            qpos: joint positions.
            camera: one of the model's by name, or a view.
        """
        view = mujoco.MjvCamera()
        if isinstance(camera, View):
            view.lookat[:] = camera.lookat
            view.distance, view.azimuth, view.elevation = camera[1:]
        else:
            view.type = mujoco.mjtCamera.mjCAMERA_FIXED
            view.fixedcamid = self._model.camera(camera).id
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._model, self._data)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, self._data, self._option, None, view, everything, self._scene
        )
        picture = np.zeros((self._rect.height, self._rect.width, 3), np.uint8)
        self._gl.make_current()
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(picture, None, self._rect, self._context)
        return picture[::-1]  # OpenGL's origin is at the bottom


def render(
    source: Any,
    qpos: ArrayLike,
    width: int = 320,
    height: int = 240,
    camera: str | View | None = None,
    memo: ArrayLike | None = None,
) -> NDArray[np.uint8]:
    """Picture of one state, or pictures of several.

    Args:
        source: an environment of this package, or an MjModel.
        qpos: ``[nq]`` or ``[T, nq]`` (``env.get_state()["qpos"]`` is ``[N, nq]``).
        width: pixels.
        height: pixels.
        camera: a name or a view; default what the environment recommends, else the whole scene.
        memo: what episodes remembered in these states, ``env.get_state()["memo"]`` if there is
            one; tasks with a target of their own in each episode show it from this.

    Returns:
        ``[H, W, 3]`` or ``[T, H, W, 3]``.

    Raises:
        GenpolicyError: no OpenGL, or no such camera.
    """
    sim = getattr(source, "sim", source)
    model = sim if isinstance(sim, mujoco.MjModel) else sim.model
    whole = View(tuple(model.stat.center), 1.5 * model.stat.extent, 135.0, -30.0)
    view: str | View = camera or getattr(sim, "camera", whole)
    names = [model.camera(i).name for i in range(model.ncam)]
    if isinstance(view, str) and view not in names:
        raise GenpolicyError(f"camera {view!r} does not exist: choose one of {', '.join(names)}")
    states = np.asarray(qpos, np.float64)
    show = getattr(sim, "show", None) if memo is not None else None
    memos = np.atleast_2d(np.asarray(memo)) if show else []
    model = copy.copy(model)  # ``show`` and the renderer change it
    pictures = []
    with Renderer(model, width, height) as renderer:
        for i, state in enumerate(np.atleast_2d(states)):
            if show:
                show(model, memos[i])
            pictures.append(renderer.render(state, view))
    return pictures[0] if states.ndim == 1 else np.stack(pictures)
