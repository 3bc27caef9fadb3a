import numpy as np
import pytest
from toy_demonstrations import make_episode, make_task

from genpolicy.data.demonstrations import Episode
from genpolicy.spec import TaskSpec


@pytest.fixture
def task() -> TaskSpec:
    return make_task({"position": 3, "velocity": 2})


@pytest.fixture
def episodes(task) -> list[Episode]:
    rng = np.random.default_rng(0)
    return [make_episode(task, length, rng) for length in (4, 1, 7)]
