"""How punctual the loop is on this machine, bare and beside inference; needs no robot.

Each phase is the real thing minus the robot: the ticker under soft real time, the recorder's
ring, the envelope at control rate, and the policy's process with one request always in flight,
which is more inference than any run has.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from genpolicy_deploy.actions import action_mode
from genpolicy_deploy.contract import Contract
from genpolicy_deploy.controller import Controller
from genpolicy_deploy.envelope import Envelope
from genpolicy_deploy.inference import Inference
from genpolicy_deploy.player import ChunkPlayer
from genpolicy_deploy.realtime import Ticker, soft_realtime
from genpolicy_deploy.recorder import Recorder
from genpolicy_deploy.robots.base import Limits, RobotSpec
from genpolicy_deploy.session import versions

WARM_UP_TICKS = 100


def bench(
    path: Path,
    seconds: float = 60.0,
    hz: float = 500.0,
    on_progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The bare loop, then beside inference with one sample and with the file's own number.

    The last phase lasts ``seconds``, the others a sixth of that.
    """
    contract = Controller(path).contract
    phases = [("bare", None, seconds / 6), ("K=1", 1, seconds / 6)]
    count = contract.num_samples
    if count > 1:
        phases.append((f"K={count}", count, seconds))
    else:
        phases[-1] = ("K=1", 1, seconds)
    result: dict[str, Any] = {"controller": str(path), "tick_hz": hz, "phases": {}}
    for name, samples, duration in phases:
        on_progress(f"{name}: {duration:.0f} s")
        with contextlib.ExitStack() as stack:
            phase = _Phase(path, contract, samples, hz, stack)
            result["phases"][name] = phase.run(duration)
    return result | {"versions": versions()}


class _Phase:
    def __init__(
        self,
        path: Path,
        contract: Contract,
        samples: int | None,
        hz: float,
        stack: contextlib.ExitStack,
    ) -> None:
        task = contract.spec.task
        self.ticker = Ticker(hz)
        self.mode = action_mode(task)
        spec = _free_robot(self.mode.axes, hz)
        self.envelope = Envelope(spec, 1.0 / task.control_hz)
        self.steps = max(round(hz / task.control_hz), 1)
        self.position, self.target = np.zeros(len(spec.axes)), np.zeros(len(spec.axes))
        self.envelope.start(self.position)
        golden = contract.golden.inputs
        self.observation = {f.name: golden[f"obs.{f.name}"][0] for f in task.observations}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        recorder = Recorder(folder / "bench.mcap", contract.spec, len(spec.axes), {})
        self.recorder = stack.enter_context(recorder)
        self.inference = self.player = None
        if samples is not None:
            self.inference = Inference(path, contract, samples)
            stack.callback(self.inference.close)
            self.inference.start()
            self.inference.wait_ready()
            self.player = ChunkPlayer(contract, self.inference, 10**12, lambda *_: None)
        self.granted = stack.enter_context(soft_realtime())

    def run(self, seconds: float) -> dict[str, Any]:
        """Tick for ``seconds``, after a short warm-up that does not count."""
        for _ in range(WARM_UP_TICKS):
            self._tick(self.ticker.wait())
        self.ticker = Ticker(1e9 / self.ticker.period_ns)
        until = time.monotonic_ns() + int(seconds * 1e9)
        while (now := self.ticker.wait()) < until:
            self._tick(now)
        ticker = self.ticker
        total = ticker.ticks + ticker.missed
        result: dict[str, Any] = {
            "seconds": round(seconds, 3),
            "ticks": ticker.ticks,
            "missed_deadlines": ticker.missed,
            "missed_share": ticker.missed / total,
            "lateness_us": ticker.lateness.summary(),
            "log_frames_dropped": self.recorder.dropped,
            "realtime": self.granted,
        }
        if self.inference is not None:
            compute = self.inference.compute
            result["inference_ms"] = {
                "p50": round(compute.percentile(50.0) / 1e3, 3),
                "p99": round(compute.percentile(99.0) / 1e3, 3),
                "count": compute.total,
            }
        return result

    def _tick(self, now: int) -> None:
        if self.player is not None:
            self.player.poll(now)
            if not self.player.asking:
                self.player.drop()
                self.player.observe(self.observation)
                self.player.ask(now, now)
        if self.ticker.index % self.steps == 0:
            self.target[0] = 0.02 * np.sin(1e-9 * now)
            self.envelope.apply(self.target, self.position)
        vectors = (self.position, self.envelope.command)
        ticker = self.ticker
        self.recorder.put_tick(
            now, ticker.ticks, vectors, (0, 0, 0), ticker.last_lateness_us, 0.0, 3
        )


def _free_robot(axes: tuple[str, ...], hz: float) -> RobotSpec:
    """A robot that is not there."""
    n = len(axes)
    wide = (1e3,) * n
    limits = Limits((-10.0,) * n, (10.0,) * n, wide, (1e5,) * n, (1e7,) * n, wide)
    return RobotSpec("none", "", (), (), axes, limits, hz, "is not there", 1.0)
