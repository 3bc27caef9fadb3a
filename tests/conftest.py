"""One thread per test process: pytest-xdist supplies the parallelism, and results do not vary."""

import os

from hypothesis import settings

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
os.environ.setdefault("WANDB_MODE", "offline")
# A first call may compile, and a loaded machine is slow; the same examples every time.
settings.register_profile("genpolicy", deadline=None, derandomize=True)
settings.load_profile("genpolicy")
