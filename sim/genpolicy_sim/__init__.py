"""Batched MuJoCo tasks behind the VecEnv protocol of ``genpolicy.spec``.

``make("lift", num_envs=64)`` builds one; other packages add tasks through the entry-point group
``genpolicy.tasks`` (a factory ``(num_envs, *, history, dtype, **kwargs) -> VecEnv``).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from genpolicy.spec import GenpolicyError, VecEnv

__all__ = ["expert", "make", "tasks"]


def tasks() -> list[str]:
    """Names of all installed tasks."""
    return sorted(_entry_points())


def make(
    name: str,
    num_envs: int = 1,
    *,
    history: int = 1,
    dtype: DTypeLike = np.float32,
    **kwargs: Any,
) -> VecEnv:
    """Build ``num_envs`` environments of task ``name``.

    Args:
        name: one of ``tasks()``.
        num_envs: N.
        history: To, how many past observations each observation holds, oldest first.
        dtype: of the observations; the simulation itself is float64.
        **kwargs: the task's own options, for example ``max_episode_steps``.

    Raises:
        GenpolicyError: no such task, or an option that it does not take.
    """
    entry = _entry_points().get(name)
    if entry is None:
        raise GenpolicyError(
            f"task {name!r} does not exist: choose one of {', '.join(tasks())} "
            "(an environment of Gymnasium's is task=gym task.options.id=NAME)"
        )
    if num_envs < 1 or history < 1:
        raise GenpolicyError(f"num_envs={num_envs} and history={history} must be at least 1")
    if (limit := kwargs.get("max_episode_steps")) is not None and limit < 1:
        raise GenpolicyError(f"task {name!r}: max_episode_steps={limit} must be at least 1")
    factory = _load(entry)
    try:
        env = factory(num_envs, history=history, dtype=dtype, **kwargs)
    except TypeError as error:
        if kwargs and "unexpected keyword argument" in str(error):
            raise GenpolicyError(f"task {name!r}: {error}") from error
        raise
    if not isinstance(env, VecEnv):
        raise GenpolicyError(
            f"{_source(entry)} returned a {type(env).__name__}, which is no genpolicy.spec.VecEnv: "
            "it needs num_envs, spec, reset, step, get_state, set_state and close"
        )
    return env


def _load(entry: EntryPoint) -> Callable[..., Any]:
    try:
        return entry.load()
    except Exception as error:  # other people's code: whatever it is, it is reported as theirs
        reason = " ".join(str(error).split())
        raise GenpolicyError(
            f"{_source(entry)} cannot be loaded ({type(error).__name__}: {reason}): repair or "
            "uninstall that package"
        ) from error


def _source(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist else "an unknown package"
    return f"task {entry.name!r} of package {package} ({entry.value})"


def expert(name: str, num_envs: int = 1, *, seed: int = 0, **kwargs: Any) -> Any:
    """The scripted expert of a task: ``reset(mask)``, ``act(obs) -> actions [N, 1, Da]``.

    Raises:
        GenpolicyError: the task has none, or an option that it does not take.
    """
    from genpolicy_sim.experts import EXPERTS

    if name not in EXPERTS:
        raise GenpolicyError(
            f"task {name!r} has no scripted expert ({', '.join(EXPERTS)} have): let a policy act, "
            "checkpoint=RUN"
        )
    kind = EXPERTS[name]
    options = list(signature(kind).parameters)[2:]  # after num_envs and rng
    if unknown := sorted(set(kwargs) - set(options)):
        raise GenpolicyError(
            f"the expert of task {name!r} has no option {unknown[0]!r}: it has {', '.join(options)}"
        )
    return kind(num_envs, np.random.default_rng(seed), **kwargs)


def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="genpolicy.tasks")}
