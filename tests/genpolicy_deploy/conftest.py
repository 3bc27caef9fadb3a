"""Fixtures of the deployment tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_controller import build, lift_task


@pytest.fixture(scope="session")
def build_controller() -> Callable[..., Path]:
    return build


@pytest.fixture(scope="session")
def controller_path(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("onnx") / "tiny.onnx")


@pytest.fixture
def observation() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {f.name: rng.normal(size=f.dim).astype(np.float32) for f in lift_task().observations}
