"""Orders to a peer, one per line on stdin, and its answers on stdout.

Every order is answered by one line: ``ok``, ``ok`` and a JSON document, or ``error`` and a text.
All peers know

- ``reset SEED``: arm and cube, at rest, to where episode SEED of Lift starts;
- ``state``: what ``PeerArm.state`` tells;
- ``die``: no answer, the process is gone without a goodbye;

and each adds the faults of its protocol.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Callable, Mapping
from typing import Any

from genpolicy_sim.peers.arm import PeerArm

Order = Callable[..., dict[str, Any] | None]  # called with the words after the order's name


def announce(**where: Any) -> None:
    """The first line of a peer: where to connect."""
    print(json.dumps({"ready": where}), flush=True)


class Orders:
    """Reads orders without waiting.

    Args:
        arm: what ``reset`` and ``state`` are about.
        faults: {name: function of the words that follow}; a ``ValueError``, ``TypeError`` or
            ``KeyError`` of a function is the answer.
    """

    def __init__(self, arm: PeerArm, faults: Mapping[str, Order]) -> None:
        self._orders: dict[str, Order] = {
            "reset": lambda seed: arm.reset(int(seed)),
            "state": arm.state,
            "die": lambda: os._exit(1),
            **faults,
        }
        self._pending = b""

    def fileno(self) -> int:
        """For ``select``: readable when an order may be there."""
        return sys.stdin.fileno()

    def poll(self) -> bool:
        """Carry out the orders that are there; False when stdin is closed."""
        while select.select([self], [], [], 0.0)[0]:
            received = os.read(self.fileno(), 65536)
            if not received:
                return False
            *lines, self._pending = (self._pending + received).split(b"\n")
            for line in lines:
                if words := line.decode(errors="replace").split():
                    print(self._carry_out(words), flush=True)
        return True

    def _carry_out(self, words: list[str]) -> str:
        name, *arguments = words
        if name not in self._orders:
            return f"error '{name}' is no order: choose {', '.join(sorted(self._orders))}"
        try:
            answer = self._orders[name](*arguments)
        except (ValueError, TypeError, KeyError) as error:
            return f"error {name}: {type(error).__name__} {' '.join(str(error).split())}"
        return "ok" if answer is None else f"ok {json.dumps(answer)}"
