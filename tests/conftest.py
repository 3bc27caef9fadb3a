"""One thread per test process: pytest-xdist supplies the parallelism, and results do not vary."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
os.environ.setdefault("WANDB_MODE", "offline")
