"""Ways that policies take: counts, entropy, picture."""

import matplotlib.image
import numpy as np
import pytest

from genpolicy.report.modes import Episodes, Scene, draw, summary

PATH = np.array([[0.0, 0.0], [0.1, 1.0]])


def episodes(modes, success=True):
    modes = np.array(modes)
    return Episodes([PATH] * len(modes), modes, np.broadcast_to(success, modes.shape))


@pytest.mark.parametrize(
    ("modes", "distinct", "entropy"),
    [([0, 1, 2, 3], 4, 1.0), ([2, 2, 2], 1, 0.0), ([0, 0, 3, 3], 2, 0.5)],
)
def test_entropy_in_closed_form(modes, distinct, entropy):
    numbers = summary(episodes(modes), num_modes=4)
    assert numbers["modes"] == distinct
    assert numbers["entropy"] == pytest.approx(entropy)
    assert numbers["success_rate"] == 1.0 and numbers["episodes"] == len(modes)


def test_only_successful_episodes_count():
    some = episodes([0, 1, 2, 2, -1], np.array([True, False, True, True, False]))
    numbers = summary(some, num_modes=3)
    assert numbers["counts"] == [1, 0, 2] and numbers["modes"] == 2
    assert numbers["success_rate"] == 0.6
    assert numbers["success_lo"] < 0.6 < numbers["success_hi"]


def test_no_success_is_no_way():
    numbers = summary(episodes([-1, -1], success=False), num_modes=3)
    assert numbers["modes"] == 0 and numbers["entropy"] == 0.0 and numbers["counts"] == [0, 0, 0]


def test_the_picture_has_a_panel_for_each_policy(tmp_path):
    scene = Scene(np.array([[0.0, 0.5, 0.1]]), 0.9, (-0.3, 0.0), (0.3, 1.0), 2)
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    draw({"a": episodes([0, 1])}, scene, one)
    draw({"a": episodes([0, 1]), "b": episodes([-1, 0], np.array([False, True]))}, scene, two)
    widths = [matplotlib.image.imread(file).shape[1] for file in (one, two)]
    assert widths[1] == 2 * widths[0]
    draw({str(n): episodes([0, 1]) for n in range(6)}, scene, two)  # in two rows
    shape, first = (matplotlib.image.imread(file).shape for file in (two, one))
    assert (shape[0], shape[1]) == (2 * first[0], 5 * first[1])
    assert len(np.unique(matplotlib.image.imread(two).reshape(-1, 4), axis=0)) > 20
