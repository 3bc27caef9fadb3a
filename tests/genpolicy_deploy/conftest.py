"""A tiny controller written with onnx.helper (no torch), with a true contract and golden pair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from genpolicy_deploy.contract import METADATA_KEY, Contract, Golden
from onnx import TensorProto, helper, numpy_helper

from genpolicy.spec import ActionSpec, Feature, PolicySpec, TaskSpec

ACTIONS = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")


def lift_task() -> TaskSpec:
    return TaskSpec(
        task="lift",
        robot="Panda",
        observations=(
            Feature("robot0_eef_pos", (3,), "m"),
            Feature("robot0_eef_quat", (4,)),
            Feature("robot0_gripper_qpos", (2,), "m"),
            Feature("object", (10,)),
        ),
        action=ActionSpec(ACTIONS, ("",) * 7, (-1.0,) * 7, (1.0,) * 7),
        control_mode="osc_pose_delta",
        control_hz=20.0,
        max_episode_steps=100,
        control={"position_scale": 0.05, "rotation_scale": 0.5, "gripper_speed": 0.2},
    )


def _model(spec: PolicySpec, weight: np.ndarray, scores: bool, samples: int | str):
    """actions = clip(W obs + 0.3 noise), scores = mean action: every part of the interface."""
    names = [f.name for f in spec.task.observations]
    tp, da = spec.chunk, spec.task.action.dim
    init = [
        numpy_helper.from_array(weight.astype(np.float32), "W"),
        numpy_helper.from_array(np.array([1, 1, -1], np.int64), "row"),
        numpy_helper.from_array(np.array([1, tp, da], np.int64), "chunk"),
        numpy_helper.from_array(np.array([0], np.int64), "first"),
        numpy_helper.from_array(np.float32(0.3), "sigma"),
        numpy_helper.from_array(np.float32(-1.0), "low"),
        numpy_helper.from_array(np.float32(1.0), "high"),
    ]
    nodes = [
        *(helper.make_node("Reshape", [f"obs.{n}", "row"], [f"flat.{n}"]) for n in names),
        helper.make_node("Concat", [f"flat.{n}" for n in names], ["x"], axis=2),
        helper.make_node("MatMul", ["x", "W"], ["mean_flat"]),
        helper.make_node("Reshape", ["mean_flat", "chunk"], ["mean"]),
        helper.make_node("Squeeze", ["noise", "first"], ["eps"]),
        helper.make_node("Mul", ["eps", "sigma"], ["scaled"]),
        helper.make_node("Add", ["mean", "scaled"], ["raw"]),
        helper.make_node("Clip", ["raw", "low", "high"], ["actions"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value(f"obs.{f.name}", TensorProto.FLOAT, [1, spec.obs_steps, f.dim])
        for f in spec.task.observations
    ]
    inputs.append(value("noise", TensorProto.FLOAT, [1, samples, tp, da]))
    outputs = [value("actions", TensorProto.FLOAT, [samples, tp, da])]
    if scores:
        nodes.append(
            helper.make_node("ReduceMean", ["actions"], ["scores"], axes=[1, 2], keepdims=0)
        )
        outputs.append(value("scores", TensorProto.FLOAT, [samples]))
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, init)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _golden(model: onnx.ModelProto, spec: PolicySpec, samples: int) -> Golden:
    rng = np.random.default_rng(1)
    inputs = {
        f"obs.{f.name}": rng.normal(size=(1, spec.obs_steps, f.dim)).astype(np.float32)
        for f in spec.task.observations
    }
    shape = (1, samples, spec.chunk, spec.task.action.dim)
    inputs["noise"] = rng.normal(size=shape).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString())
    names = [o.name for o in session.get_outputs()]
    return Golden(inputs, dict(zip(names, session.run(None, inputs), strict=True)))


def build(path: Path, **options) -> Path:
    """Write a controller; options: task, obs_steps, samples, scores, temperature, edit, weight."""
    task = options.get("task") or lift_task()
    spec = PolicySpec(task, options.get("obs_steps", 1), chunk=8, exec_steps=4)
    scores, samples = options.get("scores", True), options.get("samples", 3)
    rows, columns = spec.obs_steps * task.obs_dim, spec.chunk * task.action.dim
    weight = options.get("weight")
    if weight is None:
        weight = np.random.default_rng(0).normal(size=(rows, columns)) * 0.05
    axis = samples if options.get("fixed") else "N"
    model = _model(spec, weight, scores, axis)
    contract = Contract(
        spec=spec,
        noise={"noise": (1, "N", spec.chunk, task.action.dim)},
        num_samples=samples if scores else 1,
        temperature=options.get("temperature", 0.0),
        has_scores=scores,
        sampler={"name": "ddim", "steps": 1, "eta": 0.0, "train_steps": 1},
        checkpoint_hash="0" * 64,
        versions={"onnx": onnx.__version__},
        parity_max_abs_err=0.0,
        golden=_golden(model, spec, samples),
    )
    text = contract.to_json()
    edit = options.get("edit")
    if edit is not None:
        text = edit(text)
    if text is not None:
        helper.set_model_props(model, {METADATA_KEY: text})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="session")
def build_controller() -> Callable[..., Path]:
    return build


@pytest.fixture(scope="session")
def controller_path(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("onnx") / "tiny.onnx")


@pytest.fixture
def observation() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {f.name: rng.normal(size=f.dim).astype(np.float32) for f in lift_task().observations}
