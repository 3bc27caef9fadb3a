"""From modules to an ONNX graph: one trace, every draw an input, nothing of this machine in it."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import onnx
import torch
from genpolicy_deploy.contract import (
    SAMPLES,
    RealTimeChunking,
    chunk_inputs,
    obs_inputs,
    symbolic_shapes,
)
from torch import Tensor, nn

from genpolicy.data.normalizer import Normalizer
from genpolicy.interfaces import Policy
from genpolicy.values.critic import ValueFunction

OPSET = 20
# Above this, tanh(softplus(x)) is 1 in float32; below it, its square does not overflow.
_MISH_SATURATED = 20.0


class Exportable(Policy, Protocol):
    """A policy that describes itself and carries its normalizer."""

    normalizer: Normalizer

    def config_dict(self) -> dict[str, Any]:
        """Name and configuration."""
        ...


class ExpMish(nn.Module):
    """Mish written with one exponential.

    x·tanh(log(1 + eˣ)) = x·n / (n + 2) with n = eˣ(eˣ + 2). ONNX Runtime has no Mish kernel and
    expands it to Softplus, which it does not vectorise: in this form a chunk of ten samples
    takes 40 % less time.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply element-wise."""
        e = x.clamp(max=_MISH_SATURATED).exp()
        n = e * (e + 2.0)
        return x * (n / (n + 2.0))


class ControllerModule(nn.Module):
    """What is exported: observations and noise in, N actions and maybe N scores out.

    With real-time chunking, what is left of the chunk being executed comes in, too.

    There is one observation: the policy and the value function encode it once for all N samples.
    """

    def __init__(
        self, policy: Policy, value: ValueFunction | None, rtc: RealTimeChunking | None
    ) -> None:
        super().__init__()
        self.policy = _for_onnx(policy)
        self.value = _for_onnx(value) if value is not None else None
        self.rtc = rtc
        self.inputs = list(input_shapes(policy, rtc, 1))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Tensors in the order of ``inputs`` to ``actions [N, Tp, Da]`` and ``scores [N]``."""
        named = dict(zip(self.inputs, inputs, strict=True))
        return run_torch(self.policy, self.value, self.rtc, named)


def run_torch(
    policy: Any,
    value: ValueFunction | None,
    rtc: RealTimeChunking | None,
    inputs: dict[str, Tensor],
) -> tuple[Tensor, ...]:
    """The controller in torch, from named graph inputs."""
    obs = {name.removeprefix("obs."): inputs[name] for name in obs_inputs(policy.spec)}
    noise = {name: inputs[name] for name in policy.noise_spec(1, 1)}
    name, shape = next(iter(symbolic_shapes(policy.noise_spec).items()))
    num_samples = noise[name].shape[shape.index(SAMPLES)]
    if rtc is None:
        actions = policy.sample(obs, noise=noise, num_samples=num_samples)
    else:
        actions = policy.go_on(
            obs,
            inputs["prev_actions"],
            inputs["prev_weights"],
            method=rtc.method,
            noise=noise,
            num_samples=num_samples,
        )
    if value is None:
        return (actions[0],)
    return actions[0], value.score(obs, actions)[0]


def input_shapes(
    policy: Policy, rtc: RealTimeChunking | None, num_samples: int
) -> dict[str, tuple[int, ...]]:
    """Graph inputs in order: observations as in the task, the policy's noise, the old chunk."""
    previous = {} if rtc is None else chunk_inputs(policy.spec)
    return obs_inputs(policy.spec) | dict(policy.noise_spec(1, num_samples)) | previous


def build_graph(
    policy: Policy, value: ValueFunction | None, rtc: RealTimeChunking | None = None
) -> onnx.ModelProto:
    """Trace the controller with a dynamic number of samples."""
    module = ControllerModule(policy, value, rtc)
    shapes = input_shapes(policy, rtc, 2)
    axis = torch.export.Dim(SAMPLES, min=1)
    symbolic = symbolic_shapes(policy.noise_spec)
    dynamic = tuple(
        {symbolic[name].index(SAMPLES): axis} if name in symbolic else {} for name in shapes
    )
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(torch.zeros(shape) for shape in shapes.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=module.inputs,
            output_names=["actions"] if value is None else ["actions", "scores"],
            dynamic_shapes=(dynamic,),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    return _without_traces(program.model_proto)


def _for_onnx(module: Any) -> Any:
    """A float32 copy on the CPU for inference, its Mish replaced by a form that ONNX runs fast."""
    module = copy.deepcopy(module).cpu().float().eval()
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Mish):
                setattr(parent, name, ExpMish())
    return module


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the exporter notes on every node: source lines and paths of this machine."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.initializer, *graph.value_info):
        del item.metadata_props[:]
        item.ClearField("doc_string")
    for item in (*graph.input, *graph.output):
        del item.metadata_props[:]
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says about itself (missing torchvision, its own deprecations)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
