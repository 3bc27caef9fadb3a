"""What an exported controller says about itself: one JSON document in the ONNX metadata.

``genpolicy.export`` writes it, ``Controller`` reads it: both import this file, so writer and
reader cannot drift apart. The graph it describes has

- inputs ``obs.<key>`` ``[1, To, D]`` float32 for every observation of the task, and every name of
  ``policy.noise_spec(1, N)`` with exactly that shape;
- with real-time chunking, inputs ``prev_actions`` ``[1, Tp, Da]`` (what is left of the chunk being
  executed, next action first) and ``prev_weights`` ``[1, Tp]`` (how much each row binds); all zeros
  give the plain policy;
- outputs ``actions`` ``[N, Tp, Da]`` and, with a value function, ``scores`` ``[N]``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError, PolicySpec

CONTRACT_VERSION = 2  # 1 had no ``rtc``
METADATA_KEY = "genpolicy.contract"
SAMPLES = "N"  # stands for the number of samples in the shape of a noise input

Arrays = dict[str, NDArray[np.float32]]
SymbolicShape = tuple[int | str, ...]
RTC_METHODS = ("prefix", "guided")


@dataclass(frozen=True)
class Golden:
    """One input/output pair of the exported graph, checked again whenever it is loaded."""

    inputs: Arrays  # every graph input by name
    outputs: Arrays  # "actions" and, with a value function, "scores"


@dataclass(frozen=True)
class RealTimeChunking:
    """How the graph goes on from the chunk being executed.

    ``method`` is ``prefix`` (rows of weight 1 are given, others are pulled by their weight) or
    ``guided`` (all are pulled); ``max_delay`` is the largest number of rows of weight 1.
    """

    method: str
    max_delay: int


@dataclass(frozen=True)
class Contract:
    """Everything a robot computer must know about a controller.

    ``noise`` holds the shape of each noise input for one observation, with ``"N"`` on the axis
    that counts samples (``symbolic_shapes`` makes it from a policy). ``num_samples`` and
    ``temperature`` are the defaults at the robot: temperature 0 takes the best score.
    """

    spec: PolicySpec
    noise: dict[str, SymbolicShape]
    num_samples: int
    temperature: float
    has_scores: bool
    sampler: dict[str, Any]  # {"name", "steps", ...}: as ``describe_sampler`` of the export
    checkpoint_hash: str
    versions: dict[str, str]  # of the packages that wrote the file
    parity_max_abs_err: float  # torch against onnxruntime at export
    golden: Golden
    evaluation: dict[str, Any] | None = None  # {"success_rate", ..., "episodes"} or also returns
    value: dict[str, Any] | None = None  # what the scores are, e.g. {"algo": "cal_ql", ...}
    rtc: RealTimeChunking | None = None
    version: int = field(default=CONTRACT_VERSION)

    def noise_shapes(self, num_samples: int) -> dict[str, tuple[int, ...]]:
        """Shape of every noise input for ``num_samples`` samples."""
        return {
            name: tuple(num_samples if n == SAMPLES else int(n) for n in shape)
            for name, shape in self.noise.items()
        }

    def to_json(self) -> str:
        """The document stored under ``METADATA_KEY``."""
        document = {f.name: getattr(self, f.name) for f in fields(self)}
        document["spec"] = self.spec.to_dict()
        document["rtc"] = None if self.rtc is None else asdict(self.rtc)
        document["golden"] = {
            "inputs": {name: _encode(a) for name, a in self.golden.inputs.items()},
            "outputs": {name: _encode(a) for name, a in self.golden.outputs.items()},
        }
        return json.dumps(document, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: str = "contract") -> Contract:
        """Parse and check; ``source`` (the file) begins every message.

        Raises:
            GenpolicyError: a newer version, a missing, unknown or malformed entry.
        """
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise GenpolicyError(f"{source}: the contract is not JSON ({error})") from error
        if not isinstance(document, dict):
            raise GenpolicyError(f"{source}: the contract is not a JSON object")
        _check_version(document.get("version"), source)
        if document["version"] == 1:
            document = {"rtc": None} | document
        names = {f.name for f in fields(cls)}
        if missing := sorted(names - document.keys()):
            raise GenpolicyError(f"{source}: the contract lacks '{missing[0]}'; export it again")
        if unknown := sorted(document.keys() - names):
            raise GenpolicyError(f"{source}: the contract has an unknown entry '{unknown[0]}'")
        try:
            contract = cls(**_typed(document))
        except (GenpolicyError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise GenpolicyError(f"{source}: malformed contract, {error}") from error
        _check(contract, source)
        return contract


def symbolic_shapes(
    noise_spec: Callable[[int, int], Mapping[str, tuple[int, ...]]],
) -> dict[str, SymbolicShape]:
    """``policy.noise_spec`` as the contract stores it: the axis that follows N is named."""
    few, many = noise_spec(1, 2), noise_spec(1, 3)
    return {
        name: tuple(a if a == b else SAMPLES for a, b in zip(few[name], many[name], strict=True))
        for name in few
    }


def _check_version(version: Any, source: str) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise GenpolicyError(f"{source}: the contract has no valid version")
    if version > CONTRACT_VERSION:
        raise GenpolicyError(
            f"{source}: contract version {version} is newer than this genpolicy reads "
            f"({CONTRACT_VERSION}); upgrade genpolicy on this machine"
        )


def _typed(document: Mapping[str, Any]) -> dict[str, Any]:
    """JSON containers to the types of ``Contract``."""
    typed = dict(document)
    typed["spec"] = PolicySpec.from_dict(document["spec"])
    typed["noise"] = {name: tuple(shape) for name, shape in document["noise"].items()}
    typed["num_samples"] = int(document["num_samples"])
    typed["temperature"] = float(document["temperature"])
    typed["parity_max_abs_err"] = float(document["parity_max_abs_err"])
    if document["rtc"] is not None:
        typed["rtc"] = RealTimeChunking(**document["rtc"])
    golden = document["golden"]
    typed["golden"] = Golden(
        {name: _decode(a) for name, a in golden["inputs"].items()},
        {name: _decode(a) for name, a in golden["outputs"].items()},
    )
    return typed


def _check(contract: Contract, source: str) -> None:
    """Rules that types do not express."""
    if contract.num_samples < 1:
        raise GenpolicyError(f"{source}: contract num_samples must be at least 1")
    if not contract.temperature >= 0.0:
        raise GenpolicyError(f"{source}: contract temperature must not be negative")
    for name, shape in contract.noise.items():
        if shape.count(SAMPLES) != 1 or not all(n == SAMPLES or int(n) > 0 for n in shape):
            raise GenpolicyError(
                f"{source}: noise input '{name}' has shape {list(shape)}; it needs positive sizes "
                f"and exactly one '{SAMPLES}'"
            )
    _check_rtc(contract, source)
    expected = {*obs_inputs(contract.spec), *contract.noise, *rtc_inputs(contract)}
    if contract.golden.inputs.keys() != expected:
        raise GenpolicyError(f"{source}: the golden pair must hold the inputs {sorted(expected)}")
    outputs = {"actions", "scores"} if contract.has_scores else {"actions"}
    if contract.golden.outputs.keys() != outputs:
        raise GenpolicyError(f"{source}: the golden pair must hold the outputs {sorted(outputs)}")


def _check_rtc(contract: Contract, source: str) -> None:
    rtc, most = contract.rtc, contract.spec.chunk - 1
    if rtc is not None and not (rtc.method in RTC_METHODS and 0 < rtc.max_delay <= most):
        raise GenpolicyError(
            f"{source}: contract rtc must be {' or '.join(RTC_METHODS)} with max_delay 1 to {most}"
        )


def obs_inputs(spec: PolicySpec) -> dict[str, tuple[int, ...]]:
    """Graph inputs that carry observations, ``{"obs.<key>": (1, To, D)}``."""
    return {f"obs.{f.name}": (1, spec.obs_steps, f.dim) for f in spec.task.observations}


def rtc_inputs(contract: Contract) -> dict[str, tuple[int, ...]]:
    """Graph inputs that carry the chunk being executed; none without real-time chunking."""
    return {} if contract.rtc is None else chunk_inputs(contract.spec)


def chunk_inputs(spec: PolicySpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the inputs of real-time chunking."""
    actions = (1, spec.chunk, spec.task.action.dim)
    return {"prev_actions": actions, "prev_weights": actions[:2]}


def _encode(array: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Little-endian float32 bytes in base64: exact, compact, and no NaN in the JSON."""
    data = np.ascontiguousarray(array, dtype="<f4")
    return {"shape": list(data.shape), "data": base64.b64encode(data.tobytes()).decode("ascii")}


def _decode(entry: Mapping[str, Any]) -> NDArray[np.float32]:
    try:
        raw = base64.b64decode(entry["data"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"golden pair is not base64 ({error})") from error
    return np.frombuffer(raw, dtype="<f4").reshape(entry["shape"]).astype(np.float32)
