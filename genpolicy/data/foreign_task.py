"""A task description for data that states none: published robomimic files, other people's data.

What robomimic's ``env_args`` or Gymnasium's ``env_spec`` says is used (task, robot, controller
scales, rate, version); what they do not say stays unnamed rather than guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genpolicy.spec import ActionSpec, Feature, GenpolicyError, TaskSpec

TASK_NAMES = {  # by robosuite's
    "PickPlaceCan": "can",
    "NutAssemblySquare": "square",
    "TwoArmTransport": "transport",
    "ToolHang": "tool_hang",
}
ROBOSUITE_TYPE = 1  # robomimic's EnvType: 1 robosuite, 2 gym, 3 iGibson
DEFAULT_HZ = 20.0
# robomimic's low-dimensional observations, per arm, and its name for robosuite's object-state.
ARM_KEYS = ("eef_pos", "eef_quat", "gripper_qpos")
UNITS = {"eef_pos": "m", "eef_quat": "xyzw", "gripper_qpos": "m"}
POSE_NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")


def derive_task(
    env_args: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    action_dim: int,
    longest: int,
    where: str,
) -> TaskSpec:
    """Build the description from ``env_args``, observation shapes and action dimension.

    Actions are taken to lie in [-1, 1], as the robomimic format demands.

    Raises:
        GenpolicyError: ``env_args`` has no ``env_name``, or there is no usable observation.
    """
    if "env_name" not in env_args:
        raise GenpolicyError(f"{where}: env_args has no env_name: add it")
    kwargs = env_args.get("env_kwargs") or {}
    name = str(env_args["env_name"])
    is_robosuite = env_args.get("type", ROBOSUITE_TYPE) == ROBOSUITE_TYPE
    robots = kwargs.get("robots") or ["unknown"]
    mode, control = _controller(kwargs.get("controller_configs"), action_dim)
    version = env_args.get("env_version")
    return TaskSpec(
        task=TASK_NAMES.get(name, name.lower()),
        robot=robots if isinstance(robots, str) else "+".join(robots),
        observations=_observations(shapes, where),
        action=_action(action_dim, mode),
        control_mode=mode,
        control_hz=float(kwargs.get("control_freq") or DEFAULT_HZ),
        max_episode_steps=int(kwargs.get("horizon") or longest),
        control=control,
        versions={"robosuite": str(version)} if is_robosuite and version else {},
    )


def _observations(shapes: Mapping[str, tuple[int, ...]], where: str) -> tuple[Feature, ...]:
    """Robomimic's standard low-dimensional set if it is there, else all that are no images."""
    vectors = {key: shape for key, shape in shapes.items() if len(shape) == 1}
    arms = sorted({key.split("_")[0] for key in vectors if key.startswith("robot")})
    standard = [f"{arm}_{part}" for arm in arms for part in ARM_KEYS]
    complete = bool(arms) and all(key in vectors for key in standard)
    keys = [*standard, *(["object"] if "object" in vectors else [])] if complete else vectors
    if not keys:
        raise GenpolicyError(
            f"{where}: no low-dimensional observation among {sorted(shapes)}: extract them with "
            "robomimic's dataset_states_to_obs.py"
        )
    return tuple(Feature(k, tuple(vectors[k]), UNITS.get(k.partition("_")[2], "")) for k in keys)


def _controller(config: Any, action_dim: int) -> tuple[str, dict[str, float]]:
    """Control mode and scales; robosuite >= 1.5 nests one controller per body part."""
    parts = [config] if isinstance(config, Mapping) else list(config or [])
    if parts and "body_parts" in parts[0]:
        body = parts[0]["body_parts"]
        parts = [body["right"]] if "right" in body else []
    if not parts or parts[0].get("type") != "OSC_POSE":
        return "unspecified", {}
    part = parts[0]
    if not part.get("control_delta", part.get("input_type", "delta") == "delta"):
        return "osc_pose_absolute", {}
    top = part.get("output_max", [0.05] * 3 + [0.5] * 3)
    if action_dim % len(POSE_NAMES) or not isinstance(top, list):
        return "unspecified", {}
    return "osc_pose_delta", {"position_scale": float(top[0]), "rotation_scale": float(top[3])}


def _action(action_dim: int, mode: str) -> ActionSpec:
    if mode == "osc_pose_delta":
        arms = action_dim // len(POSE_NAMES)
        prefixes = [""] if arms == 1 else [f"robot{arm}_" for arm in range(arms)]
        names = tuple(prefix + name for prefix in prefixes for name in POSE_NAMES)
    else:
        names = tuple(f"action_{i}" for i in range(action_dim))
    return ActionSpec(
        names=names,
        units=("normalized",) * action_dim,
        low=(-1.0,) * action_dim,
        high=(1.0,) * action_dim,
    )


def derive_gym_task(
    env_spec: Mapping[str, Any],
    action_space: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    action_dim: int,
    longest: int,
    stem: str,
) -> TaskSpec:
    """Build the description of Gymnasium data: what Minari keeps of the environment, and shapes.

    Args:
        env_spec: Gymnasium's, with ``id`` and ``max_episode_steps``; empty if unknown.
        action_space: Minari's description of a Box, with ``low`` and ``high``; without them
            actions are taken to lie in [-1, 1].
        shapes: Of the observations, by name.
        action_dim: Da.
        longest: Steps of the longest episode.
        stem: The task's name where ``env_spec`` has none.
    """
    try:
        low, high = (np.ravel(action_space[key]).astype(float) for key in ("low", "high"))
        stated = low.shape == high.shape == (action_dim,) and np.isfinite([low, high]).all()
    except (KeyError, TypeError, ValueError):
        low, high, stated = np.zeros(0), np.zeros(0), False
    if not stated:
        low, high = -np.ones(action_dim), np.ones(action_dim)
    return TaskSpec(
        task=str(env_spec.get("id") or stem).rpartition(":")[2].replace("/", "-"),
        robot="unknown",
        observations=tuple(Feature(name, shape) for name, shape in shapes.items()),
        action=ActionSpec(
            tuple(f"action_{i}" for i in range(action_dim)),
            ("",) * action_dim,
            tuple(low.tolist()),
            tuple(high.tolist()),
        ),
        control_mode="unspecified",
        control_hz=DEFAULT_HZ,
        max_episode_steps=int(env_spec.get("max_episode_steps") or longest),
        score="return",
    )


def select(
    task: TaskSpec, obs_keys: Sequence[str], shapes: dict[str, tuple[int, ...]], path: Path
) -> TaskSpec:
    """The task with these observations only; units stay known where the task knew them."""
    known = {feature.name: feature for feature in task.observations}
    unknown = [key for key in obs_keys if key not in shapes]
    if unknown or not obs_keys:
        raise GenpolicyError(
            f"{path}: no observation {unknown}: choose observation keys among {sorted(shapes)}"
        )
    features = tuple(known.get(key, Feature(key, tuple(shapes[key]))) for key in obs_keys)
    return replace(task, observations=features)


def parse_json(text: Any, path: Path, name: str) -> dict[str, Any]:
    """The JSON object in attribute ``name``, or a sentence that says why there is none."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError) as error:
        raise GenpolicyError(f"{path}: attribute {name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise GenpolicyError(f"{path}: attribute {name} is not a JSON object")
    return value


def number(name: str, prefix: str) -> int | None:
    """The i of ``<prefix><i>``, None for other names."""
    suffix = name.removeprefix(prefix)
    return int(suffix) if suffix != name and suffix.isdecimal() else None
