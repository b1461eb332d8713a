import numpy as np
import pytest

from experiments.hull import hull

SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]])


def test_what_lies_between_the_points_is_inside_and_nothing_else():
    h = hull(SQUARE * [7.0, 0.1] + [3.0, 0.2])
    inside = h.contains(np.array([[3.0, 0.2], [10.0, 0.3], [6.5, 0.25], [3.0, 0.25], [2.9, 0.25], [6.5, 0.31]]))
    assert inside.tolist() == [True, True, True, True, False, False]


def test_it_is_as_its_points_say_and_not_their_box():
    h = hull(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]))
    assert h.contains([0.3, 0.3, 0.3]) and not h.contains([0.4, 0.4, 0.4]) and not h.contains([0.0, -0.01, 0.0])


def test_convex_combinations_are_inside_and_what_a_plane_parts_from_all_points_is_not():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((30, 3)) * [10, 1, 0.01]
    h = hull(points)
    weights = rng.dirichlet(np.ones(30), 200)
    assert h.contains(weights @ points).all()
    for direction in rng.standard_normal((50, 3)):
        scaled = direction / np.ptp(points, axis=0)
        farthest = points[np.argmax(points @ scaled)]
        assert h.contains(farthest)
        assert not h.contains(farthest + 1e-3 * direction / np.linalg.norm(direction) * np.ptp(points, axis=0))


def test_a_coordinate_that_does_not_vary_has_one_value():
    flat = np.column_stack([SQUARE, np.full(5, 0.25)])
    h = hull(flat)
    assert h.contains([0.5, 0.7, 0.25]) and not h.contains([0.5, 0.7, 0.26]) and not h.contains([0.5, 1.1, 0.25])
    line = hull(np.array([[2.0, 5.0], [4.0, 5.0], [3.0, 5.0]]))
    assert line.contains([[2.0, 5.0], [3.3, 5.0], [4.1, 5.0], [3.0, 5.1]]).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("points", "words"), [
    ([[1.0, 2.0]], "single point"), ([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]], "one line"),
])  # fmt: skip
def test_what_encloses_nothing_is_refused(points, words):
    with pytest.raises(ValueError, match=words):
        hull(np.array(points))
