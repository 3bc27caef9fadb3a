"""A flight log as one HTML page that needs no network: what was told, done, late and refused."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.flight_log import FlightLog, read_log
from genpolicy_deploy.states import State
from genpolicy_deploy.svg import Line, bands, curves, dots, histogram

MOST_EVENTS = 500  # in the table; the others are only counted
VELOCITY_WINDOW_S = 0.02
_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:24px auto;max-width:940px;padding:0 12px;
color:#1c2733}
h1{font-size:22px}h2{font-size:16px;margin:28px 0 6px}td,th{padding:2px 14px 2px 0;text-align:left;
vertical-align:top}svg{margin:0 8px 8px 0;max-width:100%}p{margin:4px 0 8px;color:#51606f}
.plots{display:flex;flex-wrap:wrap}.label{font-size:10px;fill:#51606f}.title{font-size:12px;
fill:#1c2733}.box{fill:#f6f8fa}path{fill:none;stroke-width:1.1}.measured{stroke:#e0812b}
.command{stroke:#2465b8}.limit{stroke:#c62f3b;stroke-dasharray:5 3}.dot{fill:#2465b8}
.bar{fill:#5b8fd0}.INIT,.WARMUP{fill:#b9c4cf}.RAMP{fill:#8fc1e8}.RUN{fill:#4f9d69}
.HOLD{fill:#efb73e}.STOP{fill:#c62f3b}.episode{fill:#d5dde5}.success{fill:#4f9d69}
.event{fill:#c62f3b}.person{fill:#8a5fc0}.key{font-weight:600}
"""


def write_report(path: Path, out: Path) -> None:
    """Read the log at ``path`` and write the page; ``out`` must not exist.

    Raises:
        GenpolicyError: not a log, nothing in it, or the page cannot be written.
    """
    log = read_log(path)
    if not len(log.ticks):
        raise GenpolicyError(f"{path}: holds no tick of the loop: there is nothing to show")
    page = render(log, path.name)
    try:
        with open(out, "x", encoding="utf-8") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise GenpolicyError(f"{out}: exists already; choose another --out file") from error
    except OSError as error:
        raise GenpolicyError(f"{out}: cannot be written ({error.strerror})") from error


def render(log: FlightLog, name: str) -> str:
    """The page."""
    view = _View(log)
    sections = [
        ("", _summary(view)),
        ("What happened", _timeline(view)),
        ("Commands and what was measured", _trajectories(view)),
        ("Velocity of commands", _velocities(view)),
        ("Latencies", _latencies(view)),
        ("Hand-over of chunks", _handovers(view)),
        ("Events", _events(view)),
    ]
    body = "".join(f"<h2>{title}</h2>{text}" if title else text for title, text in sections)
    title = f"Flight log {escape(name)}"
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    body = f"<body><h1>{title}</h1>{body}</body>"
    return f'<!doctype html><html lang="en"><head>{head}</head>{body}</html>\n'


class _View:
    """A log with times in seconds since its first tick."""

    def __init__(self, log: FlightLog) -> None:
        self.log, self.header, self.ticks = log, log.header, log.ticks
        self._zero = int(log.ticks["t_ns"].min())
        self.times = self.seconds(log.ticks["t_ns"])
        self.span = (0.0, float(self.times.max()))

    def seconds(self, t_ns: Any) -> Any:
        """Monotonic nanoseconds as seconds of the run."""
        return (t_ns - self._zero) / 1e9

    def names(self, key: str, count: int) -> Sequence[str]:
        """Names of axes or joints; numbers if the header has none."""
        return self.header.get(key) or [str(i) for i in range(count)]

    def limit(self, kind: str, name: str, index: int) -> list[float]:
        """One entry of the limits, if there are any."""
        values = self.header.get(kind, {}).get(name) or ()
        return [values[index]] if index < len(values) else []

    def state_spans(self) -> Iterator[tuple[float, float, str]]:
        """When each state began and ended."""
        state = self.ticks["state"]
        for start, end in _runs(state):
            last = min(end, len(state) - 1)
            yield float(self.times[start]), float(self.times[last]), State(int(state[start])).name


def _runs(values: NDArray[Any]) -> list[tuple[int, int]]:
    """First index and the one behind the last, of runs of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(a, b) for a, b in pairwise(edges) if b > a]


def _summary(view: _View) -> str:
    log, header = view.log, view.header
    wall_s = (int(log.ticks["t_ns"][0]) + int(header["wall_minus_monotonic_ns"])) / 1e9
    in_state: dict[str, float] = {}
    for start, end, name in view.state_spans():
        in_state[name] = in_state.get(name, 0.0) + end - start
    counts = Counter(bytes(kind).decode(errors="replace") for kind in log.events["kind"])
    episodes, good = _episodes(log)
    task = header.get("spec", {}).get("task", {}).get("task", "")
    dropped = log.event_texts("end")
    rows = [
        ("Begun", time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(wall_s))),
        ("Robot", f"{header.get('robot', 'unknown')}, task {task or 'unknown'}"),
        ("Controller", str(header.get("controller", "unknown"))),
        ("Duration", f"{view.span[1]:.1f} s, {len(log.ticks)} ticks"),
        ("States", ", ".join(f"{name} {s:.1f} s" for name, s in in_state.items())),
        ("Episodes", f"{episodes}, of which {good} reached success"),
        ("Altered by limits", f"{int(log.ticks['blocked'].max())} commands"),
        (
            "By a person",
            f"{int(log.steps['intervention'].sum())} of {len(log.steps)} control steps",
        ),
        ("Events", ", ".join(f"{k} {n}" for k, n in counts.most_common() if k != "end") or "none"),
        ("Log", "complete" if log.complete else "NOT complete: it ends early or has gaps"),
        ("Frames dropped", dropped[-1] if dropped else "not known: the log was not closed"),
    ]
    cells = (f'<tr><td class="key">{escape(k)}</td><td>{escape(v)}</td></tr>' for k, v in rows)
    return f"<table>{''.join(cells)}</table>"


def _episodes(log: FlightLog) -> tuple[int, int]:
    """Number of episodes, and of those that reached success."""
    good = log.steps["episode"][log.steps["success"]]
    return len(np.unique(log.steps["episode"])), len(np.unique(good))


def _timeline(view: _View) -> str:
    log = view.log
    rows: dict[str, list[tuple[float, float, str, str]]] = {
        "state": [(a, b, name, f"{name} from {a:.2f} s") for a, b, name in view.state_spans()],
        "episode": [],
    }
    for number in np.unique(log.steps["episode"]).tolist():
        steps = log.steps[log.steps["episode"] == number]
        start, end = (float(view.seconds(steps["t_ns"][i])) for i in (0, -1))
        good = bool(steps["success"].any())
        tip = f"episode {number}, seed {steps['seed'][0]}: {'success' if good else 'no success'}"
        rows["episode"].append((start, end, "success" if good else "episode", tip))
    if log.ticks["intervention"].any():
        flags = log.ticks["intervention"]
        rows["by a person"] = [
            (float(view.times[a]), float(view.times[b - 1]), "person", "a person's actions")
            for a, b in _runs(flags)
            if flags[a]
        ]
    for t_ns, kind, text in log.events.tolist():
        kind, text = (raw.decode(errors="replace") for raw in (kind, text))
        if kind not in ("state", "end"):
            at = max(float(view.seconds(t_ns)), 0.0)
            rows.setdefault(kind, []).append((at, at, "event", f"{at:.3f} s: {text}"))
    return bands("time in s", rows, view.span)


def _trajectories(view: _View) -> str:
    ticks, plots = view.ticks, []
    pairs = [("axes", "measured", "command", "limits")]
    if "joints" in (ticks.dtype.names or ()):
        pairs.append(("joints", "joints", "joint_command", "joint_limits"))
    for kind, measured, command, limits in pairs:
        for index, name in enumerate(view.names(kind, ticks[measured].shape[1])):
            lines = [
                Line(view.times, ticks[measured][:, index], "measured"),
                Line(view.times, ticks[command][:, index], "command"),
            ]
            bounds = view.limit(limits, "low", index) + view.limit(limits, "high", index)
            plots.append(curves(name, lines, view.span, bounds))
    note = "Blue: commanded. Orange: measured. Red: limits, where they are near."
    return f'<p>{note}</p><div class="plots">{"".join(plots)}</div>'


def _velocities(view: _View) -> str:
    """Of commands, as their limits are meant: per control step, and over 20 ms in joints."""
    ticks, plots = view.ticks, []
    hz = view.header.get("spec", {}).get("task", {}).get("control_hz", 0.0)
    for index, name in enumerate(view.names("axes", ticks["command"].shape[1])):
        change = np.diff(ticks["command"][:, index])
        change[np.diff(ticks["episode"]) != 0] = 0.0  # a robot is moved between episodes
        speed = Line(view.times[1:], np.abs(change) * hz, "command")
        plots.append(curves(name, [speed], view.span, view.limit("limits", "velocity", index)))
    if "joint_command" in (ticks.dtype.names or ()):
        steps = max(round(VELOCITY_WINDOW_S * view.header.get("rate_hz", 100.0)), 1)
        times, joints = view.times, ticks["joint_command"]
        dt = np.maximum(times[steps:] - times[:-steps], 1e-9)
        for index, name in enumerate(view.names("joints", joints.shape[1])):
            change = np.abs(joints[steps:, index] - joints[:-steps, index]) / dt
            limit = view.limit("joint_limits", "velocity", index)
            plots.append(curves(name, [Line(times[steps:], change, "command")], view.span, limit))
    note = "Change per control step, times the control rate; in joints, the mean over 20 ms."
    return f'<p>{note}</p><div class="plots">{"".join(plots)}</div>'


def _latencies(view: _View) -> str:
    log = view.log
    measured = (
        ("Lateness of ticks, µs", log.ticks["lateness_us"]),
        ("Age of measurements, µs", log.ticks["age_us"]),
        ("Inference, ms", log.chunks["compute_us"] / 1e3),
        ("From observation to chunk, ms", (log.chunks["t_ns"] - log.chunks["t_obs_ns"]) / 1e6),
    )
    plots = (histogram(f"{title}: {_quantiles(values)}", values) for title, values in measured)
    return f'<div class="plots">{"".join(plots)}</div>'


def _quantiles(values: NDArray[Any]) -> str:
    if not len(values):
        return "none"
    p50, p99 = np.percentile(values, [50, 99])
    p50, p99, most = (f"{v:.{0 if v >= 100 else 2}f}" for v in (p50, p99, values.max()))
    return f"p50 {p50}, p99 {p99}, max {most}"


def _handovers(view: _View) -> str:
    log = view.log
    times = view.seconds(log.chunks["t_ns"])
    age_ms = (log.chunks["t_ns"] - log.chunks["t_obs_ns"]) / 1e6
    jump_times, jumps = _jumps(view)
    plots = [
        dots("Age of a chunk's observation when it came, ms", times, age_ms, view.span),
        dots("Change of the action at a hand-over", jump_times, jumps, view.span),
    ]
    text = (
        f"{len(log.chunks)} chunks. A change of 1 is an action's whole range, in one control step."
    )
    return f'<p>{text}</p><div class="plots">{"".join(plots)}</div>'


def _jumps(view: _View) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the first action of a chunk follows the last of another: time, and largest change."""
    steps = view.log.steps[view.log.steps["acted"]]
    bounds = view.header.get("spec", {}).get("task", {}).get("action", {})
    if len(steps) < 2 or not bounds:
        return np.zeros(0), np.zeros(0)
    size = np.array(bounds["high"]) - np.array(bounds["low"])
    change = np.abs(np.diff(steps["action"], axis=0) / size).max(axis=1)
    chunk = np.searchsorted(view.log.chunks["t_ns"], steps["t_ns"], side="right")
    here = (np.diff(chunk) > 0) & (np.diff(steps["episode"]) == 0)
    return view.seconds(steps["t_ns"][1:][here]), change[here]


def _events(view: _View) -> str:
    rows = []
    for t_ns, kind, text in view.log.events[:MOST_EVENTS].tolist():
        cells = (
            f"{view.seconds(t_ns):.3f}",
            *(raw.decode(errors="replace") for raw in (kind, text)),
        )
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    more = len(view.log.events) - len(rows)
    rest = f"<p>and {more} more, which the log holds</p>" if more > 0 else ""
    return f"<table><tr><th>s</th><th>event</th><th></th></tr>{''.join(rows)}</table>{rest}"
