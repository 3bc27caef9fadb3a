"""``export``: write the ONNX controller, but only if it computes what torch computes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from genpolicy_deploy.contract import (
    METADATA_KEY,
    RTC_METHODS,
    Arrays,
    Contract,
    Golden,
    RealTimeChunking,
    chunk_inputs,
    obs_inputs,
    symbolic_shapes,
)
from genpolicy_deploy.handover import soft_weights

from genpolicy.export.graph import Exportable, build_graph, run_torch
from genpolicy.interfaces import Policy
from genpolicy.policies.flow import FlowPolicy
from genpolicy.runs.environment import package_versions
from genpolicy.runs.files import new_file, refuse_existing
from genpolicy.spec import GenpolicyError
from genpolicy.values.critic import ValueFunction
from genpolicy.values.rerank import check_compatible

PARITY_TOLERANCE = 1e-5  # absolute, and relative for values above 1
PARITY_DRAWS = 32


def export(
    policy: Exportable,
    value: ValueFunction | None,
    path: str | Path,
    *,
    num_samples: int = 1,
    temperature: float = 0.0,
    checkpoint_hash: str = "",
    evaluation: Mapping[str, Any] | None = None,
    value_info: Mapping[str, Any] | None = None,
    rtc: str = "auto",
) -> Contract:
    """Write ``policy`` (and ``value``) as one self-describing ONNX file.

    Args:
        policy: What is executed, normalizer included.
        value: Scores the samples; None exports the bare policy.
        path: The file; it must not exist.
        num_samples: Samples that the robot draws by default.
        temperature: Of its choice among them, by default.
        checkpoint_hash: Fingerprint of the policy's checkpoint.
        evaluation: Its measured success, with interval.
        value_info: What to say about the value function besides its configuration.
        rtc: Real-time chunking, see ``real_time_chunking``.

    Returns:
        The contract inside the file.

    Raises:
        GenpolicyError: The file exists, samples cannot be told apart without a value function,
            the value function does not fit, the policy cannot go on from another chunk, or torch
            and onnxruntime disagree. Nothing is written then.
    """
    path = Path(path)
    refuse_existing(path, "out")
    if num_samples < 1 or not temperature >= 0:
        raise GenpolicyError("export: num_samples must be at least 1, temperature not negative")
    if value is None and num_samples > 1:
        raise GenpolicyError(
            f"export: num_samples={num_samples} needs a value function to choose with: give "
            "value=CKPT or num_samples=1"
        )
    if value is not None:
        check_compatible(policy, value)
    chunking = real_time_chunking(policy, rtc)
    model = build_graph(policy, value, chunking)
    counts = sorted({1, max(2, num_samples)})
    error, golden = check_parity(model, policy, value, counts, chunking)
    contract = Contract(
        spec=policy.spec,
        noise=symbolic_shapes(policy.noise_spec),
        num_samples=num_samples,
        temperature=float(temperature),
        has_scores=value is not None,
        sampler=describe_sampler(policy.config_dict()),
        checkpoint_hash=checkpoint_hash,
        versions={**package_versions(), "opset": str(model.opset_import[0].version)},
        parity_max_abs_err=error,
        golden=golden,
        evaluation=dict(evaluation) if evaluation is not None else None,
        value={**value.config_dict(), **(value_info or {})} if value is not None else None,
        rtc=chunking,
    )
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    with new_file(path) as aside:
        onnx.save(model, aside)
    return contract


def real_time_chunking(policy: Policy, rtc: str = "auto") -> RealTimeChunking | None:
    """How the graph of ``policy`` goes on from the chunk being executed.

    Args:
        policy: What is exported.
        rtc: ``prefix`` (a flow trained with ``max_delay``), ``guided`` (any flow), ``none``, or
            ``auto``: the first of these that the policy and its horizons allow.

    Raises:
        GenpolicyError: They do not allow the one that was asked for.
    """
    if rtc not in ("auto", "none", *RTC_METHODS):
        raise GenpolicyError(f"rtc={rtc}: choose one of auto, none, {', '.join(RTC_METHODS)}")
    spec, flow = policy.spec, isinstance(policy, FlowPolicy)
    trained = policy.config.max_delay if isinstance(policy, FlowPolicy) else 0
    spare = spec.chunk - spec.exec_steps
    if rtc == "none" or (rtc == "auto" and not (flow and spare)):
        return None
    if not flow:
        raise GenpolicyError(
            f"rtc={rtc}: only a flow policy can go on from another chunk, this is a "
            f"'{policy.config_dict()['name']}' policy (for diffusion, in-painting is a heuristic "
            "that leaves the executed actions): use rtc=none, or train policy=flow_rtc"
        )
    if not spare:
        raise GenpolicyError(
            f"rtc={rtc}: all {spec.chunk} actions of a chunk are executed, so there is nothing to "
            "go on from: train with exec_steps below chunk, or use rtc=none"
        )
    if rtc == "prefix" and not trained:
        raise GenpolicyError(
            "rtc=prefix: this policy was not trained for it: train policy=flow_rtc, or use "
            "rtc=guided"
        )
    if rtc == "guided" or not trained:
        return RealTimeChunking("guided", spec.chunk - 1)
    return RealTimeChunking("prefix", trained)


def describe_sampler(config: Mapping[str, Any]) -> dict[str, Any]:
    """How the policy of ``config_dict`` draws, for the contract: whichever of these it has."""
    keys = ("train_steps", "eta", "solver", "initial_noise", "execute_std", "squash", "x0_range",
            "samples", "edits", "edit_scale", "critics", "pair")  # fmt: skip
    own = {key: config[key] for key in keys if key in config}
    inner = "base" if "base" in config else "decoder" if config.get("identity") is False else None
    if inner is not None:
        inside = describe_sampler(config[inner])
        return {"name": config["name"], "steps": inside["steps"], **own, inner: inside}
    return {"name": config["name"], "steps": config.get("sample_steps", 1), **own}


def check_parity(
    model: onnx.ModelProto,
    policy: Exportable,
    value: ValueFunction | None,
    sample_counts: list[int],
    rtc: RealTimeChunking | None = None,
) -> tuple[float, Golden]:
    """Compare torch and onnxruntime on random observations, noises, old chunks and delays.

    Returns:
        The largest error, and the last pair as the golden one.

    Raises:
        GenpolicyError: They differ by more than ``PARITY_TOLERANCE``, or an output is not finite.
    """
    session = _session(model)
    names = [output.name for output in session.get_outputs()]
    rng = np.random.default_rng(0)
    worst, golden = 0.0, None
    for draw in range(PARITY_DRAWS):
        inputs = random_inputs(policy, sample_counts[draw % len(sample_counts)], rng)
        if rtc is not None:
            inputs |= random_chunk(policy, rtc, rng)
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
            expected = [t.numpy() for t in run_torch(policy, value, rtc, tensors)]
        got = [np.asarray(array) for array in session.run(names, inputs)]
        for name, a, b in zip(names, expected, got, strict=True):
            error = float((np.abs(a - b) / np.maximum(1.0, np.abs(a))).max())
            if not error <= PARITY_TOLERANCE:
                raise GenpolicyError(
                    f"export: torch and onnxruntime disagree on {name} by {error:.2g} (more than "
                    f"{PARITY_TOLERANCE:g}) for random observations; nothing was written"
                )
            worst = max(worst, error)
        golden = Golden(inputs, dict(zip(names, got, strict=True)))
    if golden is None:
        raise ValueError("PARITY_DRAWS must be positive")
    return worst, golden


def random_inputs(policy: Exportable, num_samples: int, rng: np.random.Generator) -> Arrays:
    """Observations over and beyond the range of the data, and standard-normal noise."""
    normalizer = policy.normalizer
    mid, scale = (getattr(normalizer, f"obs_{what}").cpu().numpy() for what in ("mid", "scale"))
    inputs, first = {}, 0
    for name, shape in obs_inputs(policy.spec).items():
        part = slice(first, first + shape[-1])
        values = mid[part] + scale[part] * rng.uniform(-1.5, 1.5, shape)
        inputs[name] = values.astype(np.float32)
        first += shape[-1]
    for name, shape in policy.noise_spec(1, num_samples).items():
        inputs[name] = rng.standard_normal(shape, dtype=np.float32)
    return inputs


def random_chunk(policy: Exportable, rtc: RealTimeChunking, rng: np.random.Generator) -> Arrays:
    """What may be left of a chunk: actions within the limits, any delay and overlap."""
    shapes, action = chunk_inputs(policy.spec), policy.spec.task.action
    low, high = (np.clip(bound, -10.0, 10.0) for bound in (action.low, action.high))
    previous = rng.uniform(low, high, shapes["prev_actions"]).astype(np.float32)
    weights = np.zeros(shapes["prev_weights"], np.float32)
    overlap = int(rng.integers(0, policy.spec.chunk + 1))
    soft_weights(int(rng.integers(0, rtc.max_delay + 1)), overlap, weights[0])
    return {"prev_actions": previous, "prev_weights": weights}


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # as on the robot
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
