"""The exported graph on one ONNX Runtime thread, with inputs and outputs allocated once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.contract import METADATA_KEY, Arrays, Contract, obs_inputs, rtc_inputs

GOLDEN_TOLERANCE = 1e-4  # absolute and relative; kernels differ between CPUs by about 1e-6

FloatArray = NDArray[np.float32]


class Graph:
    """``predict``: observation and noise in, ``N`` chunks and their scores out.

    Raises:
        GenpolicyError: not an ONNX file, no contract, a contract that does not describe the
            graph, or a graph that no longer reproduces its golden pair.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._session = _open(self.path)
        metadata = self._session.get_modelmeta().custom_metadata_map
        if METADATA_KEY not in metadata:
            raise GenpolicyError(
                f"{self.path}: no '{METADATA_KEY}' metadata; only files written by "
                "`genpolicy export` can be deployed"
            )
        self.contract = Contract.from_json(metadata[METADATA_KEY], str(self.path))
        self.fixed_samples = _check_graph(self._session, self.contract, str(self.path))
        self._buffers: dict[int, _Buffers] = {}
        self._check_golden()

    def predict(
        self, obs: Mapping[str, NDArray[Any]], noise: Mapping[str, NDArray[Any]]
    ) -> tuple[FloatArray, FloatArray | None]:
        """Actions ``[N, Tp, Da]`` and scores ``[N]`` (None without a value function).

        Args:
            obs: ``{key: [1, To, D]}``, finite.
            noise: the contract's noise inputs; their sample axis decides N. With real-time
                chunking also ``prev_actions`` and ``prev_weights``, zeros where not given.

        Returns:
            Views of buffers that the next call with the same N overwrites.
        """
        buffers = self.buffers(_count_samples(noise, self.contract))
        buffers.write_obs(obs)
        for name in self.contract.noise:
            np.copyto(buffers.inputs[name], noise[name])
        buffers.write_previous(noise.get("prev_actions"), noise.get("prev_weights"))
        return self.run(buffers)

    def buffers(self, num_samples: int) -> _Buffers:
        """The bound inputs and outputs for ``num_samples`` samples, made on first use."""
        if num_samples not in self._buffers:
            if self.fixed_samples not in (None, num_samples):
                raise GenpolicyError(
                    f"{self.path}: the graph was exported for {self.fixed_samples} samples, "
                    f"not {num_samples}"
                )
            self._buffers[num_samples] = _Buffers(self._session, self.contract, num_samples)
        return self._buffers[num_samples]

    def run(self, buffers: _Buffers) -> tuple[FloatArray, FloatArray | None]:
        """Run on what lies in ``buffers``."""
        self._session.run_with_iobinding(buffers.binding)
        return buffers.outputs["actions"], buffers.outputs.get("scores")

    def _check_golden(self) -> None:
        golden = self.contract.golden
        try:
            obs = {name: golden.inputs[f"obs.{name}"] for name in self.obs_names}
            actions, scores = self.predict(obs, golden.inputs)
        except (ValueError, KeyError) as error:
            raise GenpolicyError(
                f"{self.path}: the golden pair does not fit the graph ({error}); export it again"
            ) from error
        for got, name in ((actions, "actions"), (scores, "scores")):
            if got is not None and not _close(got, golden.outputs[name]):
                raise GenpolicyError(
                    f"{self.path}: the graph does not reproduce its golden {name} on this machine; "
                    "the file is damaged or this onnxruntime computes differently: export it again"
                )

    @property
    def obs_names(self) -> tuple[str, ...]:
        """Observation keys, in the order of the task."""
        return tuple(f.name for f in self.contract.spec.task.observations)


class _Buffers:
    """Input and output arrays of one batch size, bound to the session once."""

    def __init__(self, session: ort.InferenceSession, contract: Contract, n: int) -> None:
        spec = contract.spec
        shapes = obs_inputs(spec) | contract.noise_shapes(n) | rtc_inputs(contract)
        self.inputs: Arrays = {name: np.zeros(s, np.float32) for name, s in shapes.items()}
        self.outputs: Arrays = {
            "actions": np.zeros((n, spec.chunk, spec.task.action.dim), np.float32)
        }
        if contract.has_scores:
            self.outputs["scores"] = np.zeros(n, np.float32)
        self.binding = session.io_binding()
        for name, array in self.inputs.items():
            self.binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name, array in self.outputs.items():
            self.binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def write_obs(self, obs: Mapping[str, NDArray[Any]]) -> None:
        """Copy ``{key: [1, To, D]}`` into the bound inputs, refusing what a policy cannot use."""
        for name, target in self.inputs.items():
            if not name.startswith("obs."):
                continue
            key = name[4:]
            if key not in obs:
                raise GenpolicyError(f"observation '{key}' is missing")
            value = obs[key]
            if np.shape(value) != target.shape:
                raise GenpolicyError(
                    f"observation '{key}' has shape {list(np.shape(value))}, "
                    f"the controller needs {list(target.shape)}"
                )
            np.copyto(target, value, casting="same_kind")
            if not np.isfinite(target).all():
                raise GenpolicyError(f"observation '{key}' is not finite")

    def write_previous(
        self, actions: NDArray[Any] | None = None, weights: NDArray[Any] | None = None
    ) -> None:
        """Copy what is left of the chunk being executed, ``[Tp, Da]`` and ``[Tp]``.

        Raises:
            GenpolicyError: the graph cannot go on from a chunk, or it is not finite.
        """
        given = {"prev_actions": actions, "prev_weights": weights}
        if "prev_actions" not in self.inputs:
            if weights is not None and np.any(weights):
                raise GenpolicyError("this controller was exported without real-time chunking")
            return
        for name, value in given.items():
            self.inputs[name][:] = 0.0 if value is None else value
            if not np.isfinite(self.inputs[name]).all():
                raise GenpolicyError(f"{name} is not finite")


def _open(path: Path) -> ort.InferenceSession:
    if not path.is_file():
        raise GenpolicyError(f"{path}: no such file")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no public base class
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GenpolicyError(f"{path}: not an ONNX file that runs here ({reason})") from error


def _check_graph(session: ort.InferenceSession, contract: Contract, source: str) -> int | None:
    """Compare the graph with its contract; returns the sample count when it is fixed."""
    spec = contract.spec
    inputs: dict[str, tuple[int | str, ...]] = {
        **obs_inputs(spec), **contract.noise, **rtc_inputs(contract)
    }  # fmt: skip
    outputs: dict[str, tuple[int | str, ...]] = {"actions": ("N", spec.chunk, spec.task.action.dim)}
    if contract.has_scores:
        outputs["scores"] = ("N",)
    counts: set[int] = set()
    for kind, found, expected in (
        ("input", session.get_inputs(), inputs),
        ("output", session.get_outputs(), outputs),
    ):
        if (names := {node.name for node in found}) != expected.keys():
            raise GenpolicyError(
                f"{source}: graph {kind}s {sorted(names)} are not the contract's {sorted(expected)}"
            )
        for node in found:
            shape = expected[node.name]
            if node.type != "tensor(float)" or not _fits(node.shape, shape, counts):
                raise GenpolicyError(
                    f"{source}: graph {kind} '{node.name}' is {node.type}{list(node.shape)}, the "
                    f"contract says float32{list(shape)}"
                )
    if len(counts) > 1:
        raise GenpolicyError(f"{source}: the graph's sample axes disagree: {sorted(counts)}")
    return counts.pop() if counts else None


def _fits(found: list[Any], expected: tuple[int | str, ...], counts: set[int]) -> bool:
    """Whether shapes agree; symbolic axes fit anything, fixed sample axes go into ``counts``."""
    if len(found) != len(expected):
        return False
    for have, want in zip(found, expected, strict=True):
        if isinstance(have, int):
            if want == "N":
                counts.add(have)
            elif have != want:
                return False
    return True


def _count_samples(noise: Mapping[str, NDArray[Any]], contract: Contract) -> int:
    """N, read from the first noise input's sample axis; every input must agree."""
    counts = set()
    for name, shape in contract.noise.items():
        if name not in noise or np.ndim(noise[name]) != len(shape):
            raise GenpolicyError(f"noise '{name}' of shape {list(shape)} is missing")
        counts.add(int(np.shape(noise[name])[shape.index("N")]))
        if np.shape(noise[name]) != contract.noise_shapes(max(counts))[name]:
            raise GenpolicyError(
                f"noise '{name}' has shape {list(np.shape(noise[name]))}, the controller needs "
                f"{list(shape)}"
            )
    if len(counts) > 1:
        raise GenpolicyError(f"the noise inputs have different sample counts {sorted(counts)}")
    return counts.pop() if counts else 1


def _close(got: FloatArray, want: FloatArray) -> bool:
    return got.shape == want.shape and np.allclose(
        got, want, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE
    )
