"""How figures look: inline SVG that takes its colours and font from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Placeholders for what the page decides, so that a figure fits light and dark.
INK, GRID, PAPER = "#010203", "#040506", "#070809"
PAGE_COLOURS = {INK: "currentColor", GRID: "var(--grid)", PAPER: "var(--paper)"}

BEFORE, AFTER, REFERENCE = "#d9822b", "#2f7fd1", "#8c8c8c"
COLOURS = {
    "pretrained": BEFORE,
    "pretrained_reranked": BEFORE,
    "reference": REFERENCE,
    "finetuned": AFTER,
    "reranked": AFTER,
    "deployed": "#2a9d63",
}
WIDTH = 5.4  # inches; the page shows a figure at about this size on a phone

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


@contextmanager
def figure(height: float, columns: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of the page's width and its axes, side by side."""
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, height), layout="constrained")
        yield fig, list(fig.subplots(1, columns, squeeze=False)[0])


def to_svg(fig: Figure, name: str, label: str) -> str:
    """Inline SVG for HTML: no namespaces, no metadata, ids of its own, colours of the page.

    Args:
        fig: the figure.
        name: makes its ids differ from those of other figures on the page.
        label: what it shows, for those who cannot see it.
    """
    text = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        fig.savefig(text, format="svg", transparent=True)
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (xmlns(:\w+)?|version|width|height)="[^"]*"', "", svg, count=5)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", svg)  # what nothing refers to
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    for placeholder, colour in PAGE_COLOURS.items():
        svg = svg.replace(placeholder, colour)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
