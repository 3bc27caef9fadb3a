"""A controller on strings: its observation ``object`` says where to go, and how to fail.

The ten numbers: 0 to 2 where the hand shall be (m), 3 the gripper, 4 the turn about z, 5 how long
to compute, 6 the fault, one of ``FAULTS``. It is an ordinary exported controller otherwise, run by
the ordinary process: what a policy can do wrong, ONNX Runtime really does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from genpolicy_deploy.contract import METADATA_KEY, Contract, Golden
from onnx import TensorProto, helper, numpy_helper

from genpolicy.spec import ActionSpec, Feature, PolicySpec, TaskSpec

OBJECT = 10
FAULTS = ("none", "nan", "inf", "huge", "shape", "error")
ACTIONS = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
CHUNK, EXEC_STEPS, CONTROL_HZ = 8, 4, 20.0
_GAIN = 15.0  # actions per m of distance
_LOOPS_PER_SECOND = 4000.0  # of one product of 128 by 128 matrices, about


def task(gripper: bool) -> TaskSpec:
    """What the puppet says it was trained for."""
    names = ACTIONS if gripper else ACTIONS[:6]
    count = len(names)
    return TaskSpec(
        task="puppet",
        robot="any",
        observations=(Feature("robot0_eef_pos", (3,), "m"), Feature("object", (OBJECT,))),
        action=ActionSpec(names, ("",) * count, (-1.0,) * count, (1.0,) * count),
        control_mode="osc_pose_delta",
        control_hz=CONTROL_HZ,
        max_episode_steps=1_000_000,
        control={"position_scale": 0.05, "rotation_scale": 0.5, "gripper_speed": 0.2},
    )


def build(path: Path, gripper: bool) -> Path:
    """Write it."""
    spec = PolicySpec(task(gripper), obs_steps=1, chunk=CHUNK, exec_steps=EXEC_STEPS)
    model = _model(spec)
    inputs = {
        "obs.robot0_eef_pos": np.full((1, 1, 3), 0.1, np.float32),
        "obs.object": np.full((1, 1, OBJECT), 0.125, np.float32),
    }
    session = ort.InferenceSession(model.SerializeToString())
    contract = Contract(
        spec=spec,
        noise={},
        num_samples=1,
        temperature=0.0,
        has_scores=False,
        sampler={"name": "none", "steps": 1, "eta": 0.0, "train_steps": 1},
        checkpoint_hash="0" * 64,
        versions={"onnx": onnx.__version__},
        parity_max_abs_err=0.0,
        golden=Golden(inputs, {"actions": session.run(None, inputs)[0]}),
    )
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    path.write_bytes(model.SerializeToString())
    return path


def _model(spec: PolicySpec) -> onnx.ModelProto:
    rows, dim = spec.chunk, spec.task.action.dim
    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Reshape", ["obs.object", "line"], ["flat"]),
        *(_number(name, place) for name, place in (("slow", 5), ("fault", 6))),
        node("Cast", ["fault_f"], ["fault"], to=TensorProto.INT64),
        # Where to go, relative to where the hand is
        node("Slice", ["obs.object", "at0", "at3", "axis"], ["goal"]),
        node("Sub", ["goal", "obs.robot0_eef_pos"], ["way"]),
        node("Mul", ["way", "gain"], ["move"]),
        node("Slice", ["obs.object", "at4", "at5", "axis"], ["turn"]),
        node("Slice", ["obs.object", "at3", "at4", "axis"], ["grip"]),
        node("Concat", ["move", "level", "turn", "grip"][: dim - 3], ["action"], axis=2),
        node("Clip", ["action", "low", "high"], ["bounded"]),
        # The fault: added numbers, missing rows, or an index that does not exist
        node("Gather", ["added", "fault"], ["extra"]),
        node("Add", ["bounded", "extra"], ["spoilt"]),
        *_delay(),
        node("Add", ["spoilt", "nothing"], ["delayed"]),
        node("Expand", ["delayed", "chunk"], ["whole"]),
        node("Gather", ["rows", "fault"], ["last"]),
        node("Slice", ["whole", "at0", "last", "one"], ["actions"]),
    ]
    inputs = [
        value(f"obs.{f.name}", TensorProto.FLOAT, [1, 1, f.dim]) for f in spec.task.observations
    ]
    outputs = [value("actions", TensorProto.FLOAT, ["n", "rows", dim])]
    graph = helper.make_graph(nodes, "puppet", inputs, outputs, _constants(rows, dim))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _number(name: str, place: int) -> onnx.NodeProto:
    """One of the ten numbers, with shape [1]."""
    return helper.make_node("Gather", ["flat", f"index{place}"], [f"{name}_f"])


def _delay() -> list[onnx.NodeProto]:
    """As many products of matrices as asked for; their sum, times zero, is ``nothing``."""
    node, value = helper.make_node, helper.make_tensor_value_info
    body = helper.make_graph(
        [
            node("MatMul", ["before", "matrix"], ["after"]),
            node("Identity", ["go"], ["go_on"]),
        ],
        "work",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, [128, 128]),
        ],
        [value("go_on", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, [128, 128])],
    )
    return [
        node("Mul", ["slow_f", "loops"], ["count_f"]),
        node("Cast", ["count_f"], ["count_1"], to=TensorProto.INT64),
        node("Squeeze", ["count_1"], ["count"]),
        node("Loop", ["count", "true", "matrix"], ["worked"], body=body),
        node("ReduceSum", ["worked"], ["sum"], keepdims=0),
        node("Mul", ["sum", "zero_f"], ["nothing"]),
    ]


def _constants(rows: int, dim: int) -> list[onnx.TensorProto]:
    full, short = rows, rows - 3
    arrays = {
        **{f"at{i}": np.array([i]) for i in (0, 3, 4, 5)},
        **{f"index{i}": np.array([i]) for i in (5, 6)},
        "line": np.array([-1]),
        "axis": np.array([2]),
        "one": np.array([1]),
        "gain": np.float32(_GAIN),
        "low": np.float32(-1.0),
        "high": np.float32(1.0),
        "level": np.zeros((1, 1, 2), np.float32),
        "added": np.array([0.0, np.nan, np.inf, 1e30, 0.0], np.float32),
        "rows": np.array([full, full, full, full, short]),
        "chunk": np.array([1, rows, dim]),
        "loops": np.float32(_LOOPS_PER_SECOND),
        "true": np.array(True),
        "zero_f": np.float32(0.0),
        "matrix": (np.eye(128)).astype(np.float32),
    }
    return [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]
