"""Inference in its own process: a slow, stuck or killed policy never holds up the control loop.

One request, one reply, each a single message of fixed layout. The loop polls; end-of-file on the
socket says that the process has died.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError, PolicySpec
from genpolicy_deploy.contract import Contract
from genpolicy_deploy.controller import Controller
from genpolicy_deploy.histogram import Histogram
from genpolicy_deploy.link import Link, outlive_signals
from genpolicy_deploy.realtime import prefer_this_process

READY_TIMEOUT_S = 60.0
_HEADER = [("id", "<i8"), ("seed", "<i8"), ("counter", "<i8"), ("t_obs_ns", "<i8")]
_READY = b"ready"


def request_dtype(spec: PolicySpec) -> np.dtype:
    """What is asked: which chunk of which noise seed, from which observation.

    ``prev_actions`` and ``prev_weights`` say what it goes on from (weights 0: nothing), ``delay``
    how many control steps it was planned to take.
    """
    return np.dtype(
        [
            *_HEADER,
            ("delay", "<i8"),
            ("obs", "<f4", (spec.obs_steps * spec.task.obs_dim,)),
            ("prev_actions", "<f4", (spec.chunk, spec.task.action.dim)),
            ("prev_weights", "<f4", (spec.chunk,)),
        ]
    )


def reply_dtype(spec: PolicySpec) -> np.dtype:
    """What comes back; ``error`` is empty or one sentence, and then there are no actions."""
    return np.dtype(
        [
            *_HEADER,
            ("error", "S192"),
            ("index", "<i8"),
            ("score", "<f8"),
            ("compute_us", "<f8"),
            ("actions", "<f4", (spec.chunk, spec.task.action.dim)),
        ]
    )


def split_obs(flat: NDArray[np.float32], spec: PolicySpec) -> dict[str, NDArray[np.float32]]:
    """Views ``{key: [To, D]}`` of the ``obs`` field, feature after feature."""
    views, start = {}, 0
    for feature in spec.task.observations:
        size = spec.obs_steps * feature.dim
        views[feature.name] = flat[start : start + size].reshape(spec.obs_steps, feature.dim)
        start += size
    return views


class Inference:
    """The loop's side: ``request`` and ``poll`` return at once.

    Args:
        path: the exported controller.
        contract: its contract, already checked.
        num_samples: as ``Controller``.
        temperature: as ``Controller``.
    """

    def __init__(
        self,
        path: str | Path,
        contract: Contract,
        num_samples: int | None = None,
        temperature: float | None = None,
    ) -> None:
        spec = contract.spec
        args = [str(path)]
        if num_samples is not None:
            args += ["--num-samples", str(num_samples)]
        if temperature is not None:
            args += ["--temperature", str(temperature)]
        self._sent = np.zeros(1, request_dtype(spec))
        self._got = np.zeros(1, reply_dtype(spec))
        self._sent_bytes = self._sent.view(np.uint8).data
        self._got_bytes = self._got.view(np.uint8).data
        self._obs = split_obs(self._sent["obs"][0], spec)
        self._link = Link(
            "inference", "genpolicy_deploy.inference", args, buffer=self._got.nbytes + 64
        )
        self.compute = Histogram()  # in the policy's process, µs
        self.response = Histogram()  # from request to poll, µs
        self.busy = False

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._link.process.pid if self._link.process else None

    def start(self) -> None:
        """Launch the process; ``wait_ready`` returns when the policy is loaded and warm."""
        self._link.start()

    def wait_ready(self) -> None:
        """Wait for the warmed-up policy.

        Raises:
            GenpolicyError: it did not come up.
        """
        message = bytes(self._link.wait(READY_TIMEOUT_S, "ready message"))
        if message != _READY:
            raise GenpolicyError(message.decode(errors="replace"))

    def request(
        self, stacked: dict[str, NDArray[np.float32]], seed: int, counter: int, t_obs_ns: int
    ) -> bool:
        """Ask for chunk ``counter`` from ``{key: [1, To, D]}``; False if the pipe is full.

        What it goes on from (``prev_actions`` …) stands in ``last_request`` already.

        Raises:
            LinkClosedError: the process has died.
        """
        sent = self._sent[0]
        sent["id"] += 1
        sent["seed"], sent["counter"], sent["t_obs_ns"] = seed, counter, t_obs_ns
        for name, view in self._obs.items():
            view[:] = stacked[name][0]
        self.busy = self._link.send(self._sent_bytes)
        self._sent_ns = time.monotonic_ns()
        return self.busy

    def poll(self) -> Any | None:
        """The reply to the last request (a record of ``reply_dtype``), or None for now.

        Raises:
            LinkClosedError: the process has died.
            GenpolicyError: it answers something that is no reply.
        """
        message = self._link.receive()
        if message is None:
            return None
        if len(message) != len(self._got_bytes):
            raise GenpolicyError(
                f"inference: a reply of {len(message)} bytes instead of {len(self._got_bytes)}"
            )
        self._got_bytes[:] = message
        reply = self._got[0]
        if not self.busy or reply["id"] != self._sent[0]["id"]:
            return None  # the answer to a request that was given up
        self.busy = False
        self.compute.add(float(reply["compute_us"]))
        self.response.add((time.monotonic_ns() - self._sent_ns) / 1000.0)
        return reply

    @property
    def last_request(self) -> Any:
        """The record that was sent last, and where the next one is written."""
        return self._sent[0]

    def give_up(self) -> None:
        """Forget the pending request: its reply will be ignored."""
        self.busy = False

    def close(self) -> None:
        """End the process."""
        self._link.close()


def serve(connection: socket.socket, controller: Controller) -> None:
    """Answer requests until the other side hangs up."""
    spec = controller.contract.spec
    request, reply = np.zeros(1, request_dtype(spec)), np.zeros(1, reply_dtype(spec))
    request_bytes, reply_bytes = request.view(np.uint8).data, reply.view(np.uint8).data
    observation = split_obs(request["obs"][0], spec)
    while connection.recv_into(request_bytes):
        start = time.perf_counter()
        asked, answer = request[0], reply[0]
        for name in ("id", "seed", "counter", "t_obs_ns"):
            answer[name] = asked[name]
        controller.reset(int(asked["seed"]))
        controller.counter = int(asked["counter"])
        try:
            chunk = controller.act(
                observation, previous=asked["prev_actions"], weights=asked["prev_weights"]
            )
        except GenpolicyError as error:
            answer["error"] = str(error).encode()[:192]
        else:
            answer["error"] = b""
            answer["index"], answer["score"] = chunk.index, chunk.score
            answer["actions"][:] = chunk.actions
        answer["compute_us"] = (time.perf_counter() - start) * 1e6
        connection.send(reply_bytes)


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Inference process of genpolicy-deploy.")
    parser.add_argument("--fd", type=int, required=True, help="inherited socket")
    parser.add_argument("path")
    parser.add_argument("--num-samples", type=int)
    parser.add_argument("--temperature", type=float)
    args = parser.parse_args()
    outlive_signals()
    with socket.socket(fileno=args.fd) as connection:
        try:
            controller = Controller(args.path, args.num_samples, args.temperature)
        except GenpolicyError as error:
            connection.send(str(error).encode()[:192])
            return
        controller.warm_up()
        prefer_this_process()
        with contextlib.suppress(ConnectionError):  # the other side has hung up
            connection.send(_READY)
            serve(connection, controller)


if __name__ == "__main__":
    main()
