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


@pytest.fixture(
    scope="session", params=["tiny", "diffusion", "flow", "gaussian", "latent", "on_the_fly"]
)
def any_controller_path(request, controller_path, tmp_path_factory) -> Path:
    """A controller written by hand, and one exported from every kind of policy."""
    if request.param == "tiny":
        return controller_path
    from exported_controller import build_exported  # torch: not for tests of the robot alone

    return build_exported(tmp_path_factory.mktemp("onnx") / f"{request.param}.onnx", request.param)


@pytest.fixture
def observation() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {f.name: rng.normal(size=f.dim).astype(np.float32) for f in lift_task().observations}
