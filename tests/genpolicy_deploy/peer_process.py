"""A simulated arm as a process that takes orders."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


class PeerProcess:
    """``ready`` is what the peer announced."""

    def __init__(self, name: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", f"genpolicy_sim.peers.{name}", *arguments]
        self.start()

    def start(self) -> None:
        """Also once more, after ``close``."""
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True)
        line = self._line()
        assert line, f"did not start: {self._command}"
        self.ready: dict[str, Any] = json.loads(line)["ready"]

    def order(self, order: str) -> dict[str, Any]:
        """Give an order; returns the answer."""
        assert self.process.stdin
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        answer = self._line()
        assert answer.startswith("ok"), f"{order}: {answer}"
        return json.loads(answer[2:] or "{}")

    def state(self) -> dict[str, Any]:
        """Of the arm; its goals are those since the last call."""
        return self.order("state")

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        try:
            assert self.process.wait(30) == 0
        finally:
            self.process.kill()

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()
