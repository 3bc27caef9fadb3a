"""A simulated arm as a process that takes orders."""

from __future__ import annotations

import json
import subprocess
import sys


class PeerProcess:
    """``ready`` is what the peer announced; ``tell`` gives an order and returns the answer."""

    def __init__(self, name: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"genpolicy_sim.peers.{name}", *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.ready = json.loads(self._line())["ready"]

    def tell(self, order: str) -> dict:
        assert self.process.stdin
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        answer = self._line()
        assert answer.startswith("ok"), answer
        return json.loads(answer[2:] or "{}")

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(30) == 0

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()
