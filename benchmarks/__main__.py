"""Every micro-benchmark, one after the other; results land beside the scripts.

    make bench

Minutes on a quiet machine. The learning results (``finetune_seeds.py``, ``rl_tasks.py``,
``avoid_modes.py``) take longer: run them by hand.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = (
    "robosuite",
    "tasks",
    "dppo_update",
    "gorl_throughput",
    "expo_update",
    "onnx",
    "control_loop",
    "recorder",
)


def main() -> None:
    """Run them all; stop at the first that fails."""
    for name in SCRIPTS:
        print(f"== {name}", flush=True)
        command = [sys.executable, HERE / f"bench_{name}.py", "--json", HERE / f"{name}.json"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
