"""Small plots as inline SVG, drawn here so that a robot computer needs no plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 440, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 20, 20
_LABELS = 4


class Line(NamedTuple):
    """A curve; ``css`` is a class of the page's style sheet."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    css: str


class _Scale(NamedTuple):
    """From data to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def curves(
    title: str, lines: Sequence[Line], span: tuple[float, float], limits: Sequence[float] = ()
) -> str:
    """Curves over time, with horizontal lines at ``limits``, as far as they are near the data.

    Args:
        title: shown above.
        lines: what to draw; values that are not finite are left out.
        span: first and last time, s.
        limits: values on the vertical axis.
    """
    values = np.concatenate([line.y[np.isfinite(line.y)] for line in lines] or [np.zeros(0)])
    low, high = _range(values)
    near = [v for v in limits if low - (high - low) <= v <= high + (high - low)]
    low, high = min([low, *near]), max([high, *near])
    x, y = _scales(span, (low, high))
    body = [_rule(y(v), "limit") for v in near]
    body += [f'<path class="{line.css}" d="{_path(line, x, y)}"/>' for line in lines]
    return _figure(title, x, y, body)


def dots(title: str, x: ArrayLike, y: ArrayLike, span: tuple[float, float]) -> str:
    """Single events over time, from zero up."""
    times, values = np.asarray(x, float), np.asarray(y, float)
    shown = np.isfinite(values)
    across, up = _scales(span, (0.0, _range(np.append(values[shown], 0.0))[1]))
    spots = {
        (round(across(t)), round(up(v))) for t, v in zip(times[shown], values[shown], strict=True)
    }
    body = [f'<circle class="dot" cx="{a}" cy="{b}" r="1.5"/>' for a, b in sorted(spots)]
    return _figure(title, across, up, body)


def histogram(title: str, values: ArrayLike) -> str:
    """Counts of positive durations in logarithmic bins."""
    found = np.asarray(values, float)
    found = found[np.isfinite(found) & (found > 0.0)]
    if not len(found):
        return _figure(title, *_scales((0.0, 1.0), (0.0, 1.0)), [], labels=False)
    low, high = np.floor(np.log10(found.min())), np.ceil(np.log10(found.max()) + 1e-9)
    counts, edges = np.histogram(np.log10(found), np.linspace(low, high, int(high - low) * 20 + 1))
    x, y = _scales((low, high), (0.0, float(counts.max())))
    body = [
        f'<rect class="bar" x="{x(a):.1f}" width="{x(b) - x(a):.1f}" y="{y(n):.1f}" '
        f'height="{y(0.0) - y(n):.1f}"/>'
        for a, b, n in zip(edges[:-1], edges[1:], counts.tolist(), strict=True)
        if n
    ]
    decades = range(int(low), int(high) + 1)
    body += [_text(x(d), HEIGHT - 5, f"{10.0**d:g}", "middle") for d in decades]
    return _figure(title, x, y, body, labels=False)


def bands(
    title: str,
    rows: Mapping[str, Sequence[tuple[float, float, str, str]]],
    span: tuple[float, float],
) -> str:
    """One row per name of ``(start, end, css, tooltip)`` over time, twice as wide as a plot."""
    wide, each, left = 2 * WIDTH + 12, 16, 120
    height = _TOP + each * len(rows) + _BOTTOM
    x = _Scale(span[0], max(span[1], span[0] + 1e-9), left, wide - _RIGHT)
    parts = [_text(left, 13, title, "start", "title")]
    for row, (name, marks) in enumerate(rows.items()):
        top = _TOP + each * row
        parts.append(_text(left - 6, top + 12, name, "end"))
        for start, end, css, tip in marks:
            width = max(x(end) - x(start), 1.5)
            parts.append(
                f'<rect class="{css}" x="{x(start):.1f}" y="{top + 2}" width="{width:.1f}" '
                f'height="{each - 4}"><title>{escape(tip)}</title></rect>'
            )
    parts += [_text(x(t), height - 5, f"{t:g}", "middle") for t in _nice(*span, 8)]
    return _svg(wide, height, parts)


def _figure(title: str, x: _Scale, y: _Scale, body: list[str], labels: bool = True) -> str:
    box = (
        f'<rect class="box" x="{_LEFT}" y="{_TOP}" width="{WIDTH - _LEFT - _RIGHT}" '
        f'height="{HEIGHT - _TOP - _BOTTOM}"/>'
    )
    parts = [box, _text(_LEFT, 13, title, "start", "title"), *body]
    parts += [_text(_LEFT - 4, y(v) + 3, f"{v:.6g}", "end") for v in _nice(y.low, y.high, _LABELS)]
    if labels:
        parts += [_text(x(t), HEIGHT - 5, f"{t:g}", "middle") for t in _nice(x.low, x.high, 6)]
    return _svg(WIDTH, HEIGHT, parts)


def _svg(width: int, height: int, parts: list[str]) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {size} role="img">{"".join(parts)}</svg>'


def _scales(span: tuple[float, float], values: tuple[float, float]) -> tuple[_Scale, _Scale]:
    x = _Scale(span[0], max(span[1], span[0] + 1e-9), _LEFT, WIDTH - _RIGHT)
    return x, _Scale(values[0], max(values[1], values[0] + 1e-12), HEIGHT - _BOTTOM, _TOP)


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Of the data, with a margin; never empty."""
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or max(1e-3, 0.05 * abs(high))
    return low - margin, high + margin


def _path(line: Line, x: _Scale, y: _Scale) -> str:
    """Least and greatest value of every pixel column: no peak is lost, however long the run."""
    finite = np.isfinite(line.y) & np.isfinite(line.x)
    times, values = line.x[finite], line.y[finite]
    if not len(times):
        return ""
    column = np.clip(x(times), x.start, x.end).astype(np.int64)  # type: ignore[arg-type]
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    lows, highs = (f.reduceat(values, starts) for f in (np.minimum, np.maximum))
    points = []
    for place, low, high in zip(
        column[starts].tolist(), lows.tolist(), highs.tolist(), strict=True
    ):
        points.append(f"{place} {y(low):.1f}")
        if high > low:
            points.append(f"{place} {y(high):.1f}")
    return "M" + "L".join(points)


def _rule(height: float, css: str) -> str:
    return f'<path class="{css}" d="M{_LEFT} {height:.1f}H{WIDTH - _RIGHT}"/>'


def _text(x: float, y: float, text: str, anchor: str, css: str = "label") -> str:
    return (
        f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _nice(low: float, high: float, most: int) -> list[float]:
    """Round numbers within the range, at most so many."""
    raw = max(high - low, 1e-12) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]
