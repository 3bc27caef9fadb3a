"""Progress of long work: a bar with an ETA on a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from genpolicy.runs import distributed

console = Console(stderr=True)
_LINE_EVERY_S = 15.0


class ProgressBar:
    """Counts to ``total``; ``note`` is the short text behind the bar (loss, success, ...).

    Used as a context manager; silent on every rank but the first.
    """

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.title, self.total, self.done = title, total, done
        self.note = ""
        self._started = self._printed = time.monotonic()
        self._first, self._printed_at = done, -1
        self._quiet = not distributed.is_main()
        self._bar: Progress | None = None
        if console.is_terminal and not self._quiet:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> ProgressBar:
        """Show the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bar as it stands, or print the closing line."""
        if self._bar:
            self._bar.stop()
        elif not self._quiet and kind is None and self._printed_at != self.done:
            self._print_line()

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """``count`` more are done."""
        self.done += count
        self.note = self.note if note is None else note
        if self._bar:
            self._bar.update(self._task, completed=self.done, note=self.note)
        elif not self._quiet and time.monotonic() - self._printed > _LINE_EVERY_S:
            self._print_line()

    def _print_line(self) -> None:
        self._printed, self._printed_at = time.monotonic(), self.done
        elapsed = self._printed - self._started
        rate = (self.done - self._first) / max(elapsed, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else float("inf")
        console.print(
            f"{self.title} {self.done}/{self.total}, {elapsed:.0f} s, eta {left:.0f} s {self.note}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def say(line: str) -> None:
    """One line to the person watching, from the first rank only."""
    if distributed.is_main():
        console.print(line, highlight=False, markup=False, soft_wrap=True)
