"""Small pieces of HTML."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["card", "escape", "number", "table", "video"]


def number(value: float, text: str, key: str) -> str:
    """A number of report.json as people read it; ``key`` says which one it is."""
    return f'<data value="{value!r}" data-key="{escape(key)}">{text}</data>'


def card(value: str, label: str) -> str:
    """One figure that counts, and what it is."""
    return f'<div class="card"><b>{value}</b><span>{label}</span></div>'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], numeric: int = 1) -> str:
    """A table of HTML cells, whose columns from ``numeric`` on are right-aligned."""

    def row(cells: Sequence[Any], tag: str) -> str:
        kind = ["" if i < numeric else ' class="n"' for i in range(len(cells))]
        inner = "".join(f"<{tag}{k}>{c}</{tag}>" for k, c in zip(kind, cells, strict=True))
        return f"<tr>{inner}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f"<table><thead>{row(head, 'th')}</thead><tbody>{body}</tbody></table>"


def video(path: Path, label: str) -> str:
    """An MP4 inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<video controls loop muted autoplay playsinline aria-label="{escape(label)}" '
        f'src="data:video/mp4;base64,{data}"></video>'
    )
