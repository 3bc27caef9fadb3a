"""The fault matrix as a table and as a picture."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from faults.rig import DRIVERS

_COLUMNS = ("driver", "layer", "kind", "injections", "ended", "escapes", "hangs", "missing_logs",
            "surprises", "worst_rest_s")  # fmt: skip
_BAD = ("escapes", "hangs", "missing_logs", "surprises")


def write_tables(result: dict[str, Any], path: Path) -> None:
    """Beside the JSON file ``path``: .csv, .md and .png."""
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(result["rows"])
    path.with_suffix(".md").write_text(markdown(result))
    picture(result, path.with_suffix(".png"))


def _cells(result: dict[str, Any]) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """{(layer, kind): {driver: row}}, in the order of the rows."""
    cells: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in result["rows"]:
        cells.setdefault((row["layer"], row["kind"]), {})[row["driver"]] = row
    return cells


def _bad(row: dict[str, Any]) -> int:
    return sum(row[name] for name in _BAD)


def markdown(result: dict[str, Any]) -> str:
    """A row per kind: injections, and in bold how many of them went wrong."""
    lines = [
        f"| layer | fault | {' | '.join(DRIVERS)} |",
        f"|---|---|{'---|' * len(DRIVERS)}",
    ]
    for (layer, kind), rows in _cells(result).items():
        texts = []
        for driver in DRIVERS:
            row = rows.get(driver)
            bad = f" (**{_bad(row)}**)" if row and _bad(row) else ""
            texts.append(f"{row['injections']}{bad}" if row else "")
        lines.append(f"| {layer} | {kind} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def picture(result: dict[str, Any], path: Path) -> None:
    """Green where all was well, red where something was not, with the number of injections."""
    from matplotlib.figure import Figure

    cells = _cells(result)
    figure = Figure(figsize=(6.5, 1.2 + 0.19 * len(cells)), layout="constrained")
    axes = figure.subplots()
    for y, rows in enumerate(cells.values()):
        for x, driver in enumerate(DRIVERS):
            row = rows.get(driver)
            colour = "0.94" if row is None else "#e0563f" if _bad(row) else "#8cc68a"
            axes.add_patch(_square(x, y, colour))
            if row is not None:
                bad = f"{_bad(row)} of " if _bad(row) else ""
                text = f"{bad}{row['injections']}"
                axes.text(x, y, text, ha="center", va="center", fontsize=6)
    names = [f"{layer}: {kind}" for layer, kind in cells]
    axes.set_yticks(range(len(cells)), names, fontsize=6.5)
    axes.set_xticks(range(len(DRIVERS)), DRIVERS, fontsize=7)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_xlim(-0.5, len(DRIVERS) - 0.5)
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"{result['injections']} faults injected: {result['escapes']} escapes, "
        f"{result['hangs']} hangs, {result['missing_logs']} missing logs",
        fontsize=8,
    )
    figure.savefig(path, dpi=200)


def _square(x: int, y: int, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colour)
