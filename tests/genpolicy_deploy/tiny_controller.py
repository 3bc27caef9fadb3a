"""A tiny controller written with onnx.helper (no torch), with a true contract and golden pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
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


def _linear(spec: PolicySpec, weight: np.ndarray) -> tuple[list, list]:
    """Nodes and constants of mean = W obs, [1, Tp, Da]."""
    names = [f.name for f in spec.task.observations]
    tp, da = spec.chunk, spec.task.action.dim
    init = [
        numpy_helper.from_array(weight.astype(np.float32), "W"),
        numpy_helper.from_array(np.array([1, 1, -1], np.int64), "row"),
        numpy_helper.from_array(np.array([1, tp, da], np.int64), "chunk"),
    ]
    nodes = [
        *(helper.make_node("Reshape", [f"obs.{n}", "row"], [f"flat.{n}"]) for n in names),
        helper.make_node("Concat", [f"flat.{n}" for n in names], ["x"], axis=2),
        helper.make_node("MatMul", ["x", "W"], ["mean_flat"]),
        helper.make_node("Reshape", ["mean_flat", "chunk"], ["mean"]),
    ]
    return nodes, init


def _expert() -> tuple[list, list]:
    """Nodes and constants of a hand-written Lift policy: reach, close, lift; mean is [1, 1, 7]."""
    constants = {
        "start": np.array([7]),
        "end": np.array([10]),
        "axis": np.array([2]),
        "zero": np.array([0]),
        "one": np.array([1]),
        "near": np.float32(0.012),
        "narrow": np.float32(0.024),
        "gain": np.float32(20.0),
        "lift": np.array([0, 0, 1, 0, 0, 0, 1], np.float32).reshape(1, 1, 7),
        "turn_open": np.array([0, 0, 0, -1], np.float32).reshape(1, 1, 4),
        "turn_close": np.array([0, 0, 0, 1], np.float32).reshape(1, 1, 4),
    }
    node = helper.make_node
    nodes = [
        node("Slice", ["obs.object", "start", "end", "axis"], ["delta"]),  # cube from the hand
        node("Abs", ["delta"], ["size"]),
        node("ReduceMax", ["size"], ["distance"], keepdims=0),
        node("Less", ["distance", "near"], ["at_cube"]),
        node("Slice", ["obs.robot0_gripper_qpos", "zero", "one", "axis"], ["opening"]),
        node("ReduceMax", ["opening"], ["width"], keepdims=0),
        node("Less", ["width", "narrow"], ["gripped"]),
        node("And", ["at_cube", "gripped"], ["lifting"]),
        node("Mul", ["delta", "gain"], ["reach"]),
        node("Where", ["at_cube", "turn_close", "turn_open"], ["rest"]),
        node("Concat", ["reach", "rest"], ["reaching"], axis=2),
        node("Where", ["lifting", "lift", "reaching"], ["mean"]),
    ]
    return nodes, [numpy_helper.from_array(value, name) for name, value in constants.items()]


def _model(spec: PolicySpec, mean: tuple[list, list], sigma: float, scores: bool, samples):
    """actions = clip(mean + sigma noise), scores = mean action: every part of the interface."""
    tp, da = spec.chunk, spec.task.action.dim
    nodes, init = mean
    init += [
        numpy_helper.from_array(np.array([0], np.int64), "first"),
        numpy_helper.from_array(np.float32(sigma), "sigma"),
        numpy_helper.from_array(np.float32(-1.0), "low"),
        numpy_helper.from_array(np.float32(1.0), "high"),
    ]
    nodes += [
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
    """Write a controller; options: task, obs_steps, samples, scores, fixed,
    temperature, sigma, expert, edit (of the contract's JSON)."""
    task = options.get("task") or lift_task()
    spec = PolicySpec(task, options.get("obs_steps", 1), chunk=8, exec_steps=4)
    scores, samples = options.get("scores", True), options.get("samples", 3)
    axis = samples if options.get("fixed") else "N"
    if options.get("expert"):
        model = _model(spec, _expert(), 0.0, scores, axis)
    else:
        rows, columns = spec.obs_steps * task.obs_dim, spec.chunk * task.action.dim
        weight = np.random.default_rng(0).normal(size=(rows, columns)) * 0.05
        model = _model(spec, _linear(spec, weight), options.get("sigma", 0.3), scores, axis)
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
