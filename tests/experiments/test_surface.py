import numpy as np
import pytest

from experiments import surface

SIZES, NOISES = [64, 256, 1024, 4096], [0.0, 0.1, 0.2, 0.4, 0.6]
N, ETA = (a.ravel() for a in np.meshgrid(np.array(SIZES, float), NOISES))
PLANTED = {
    "product": {"floor": 0.2, "A": 40.0, "alpha": 0.6, "eta0": 0.1, "beta": 0.8},
    "additive": {"floor": 0.15, "A": 60.0, "alpha": 0.7, "B": 2.5, "beta": 1.0},
    "effective": {"floor": 0.15, "A": 60.0, "alpha": 0.6, "gamma": 2.0},
    "interaction": {"floor": 0.15, "A": 40.0, "alpha": 0.7, "B": 1.0, "beta": 1.2, "C": 100.0},
}


def by_hand(form, v, n, eta):
    """The formulas of the module's first lines, written down again."""
    if form == "product":
        return v["floor"] + v["A"] * (eta + v["eta0"]) ** v["beta"] / n ** v["alpha"]
    if form == "effective":
        return v["floor"] + v["A"] / (n * (1 - eta) ** v["gamma"]) ** v["alpha"]
    crossed = v.get("C", 0.0) * eta ** v["beta"] / n ** v["alpha"]
    return v["floor"] + v["A"] / n ** v["alpha"] + v["B"] * eta ** v["beta"] + crossed


def cells(form, noise=0.0):
    rng = np.random.default_rng([3, *form.encode()])
    return by_hand(form, PLANTED[form], N, ETA) * np.exp(noise * rng.standard_normal(len(N)))


def fitted(form, noise=0.0):
    return surface.fit(form, N, ETA, cells(form, noise))


@pytest.mark.parametrize("form", PLANTED)
def test_planted_parameters_are_found(form):
    exact = fitted(form)
    for name, value in PLANTED[form].items():
        assert exact.values[name] == pytest.approx(value, rel=0.02), name
    assert exact.at_bound == ()
    assert exact.rmse < 1e-4
    noisy = fitted(form, 0.01)
    assert noisy.values["alpha"] == pytest.approx(PLANTED[form]["alpha"], rel=0.1)
    assert noisy.rmse == pytest.approx(0.01, rel=0.5)


@pytest.mark.parametrize("true", ["product", "additive", "effective"])
def test_the_true_form_predicts_cells_left_out_best(true):
    y = cells(true, 0.01)
    errors = {form: surface.left_out_rmse(form, N, ETA, y) for form in ("product", "additive", "effective")}
    assert min(errors, key=errors.get) == true
    assert errors[true] < 0.03
    assert min(error for form, error in errors.items() if form != true) > 2 * errors[true]


def test_a_cell_is_left_out_of_what_predicts_it():
    """One wild cell: the others' error stays small, its own is all of its wildness."""
    y = cells("additive")
    y[7] *= 2
    error = surface.left_out_rmse("additive", N, ETA, y)
    assert error == pytest.approx(np.log(2) / len(y) ** 0.5, rel=0.1)
    assert surface.fit("additive", N, ETA, y).values["alpha"] == pytest.approx(0.7, rel=0.1)  # robust


def test_a_fit_is_the_same_twice_and_from_a_near_start():
    y = cells("product", 0.02)
    first, second = (surface.fit("product", N, ETA, y) for _ in range(2))
    assert first == second
    warm = surface.fit("product", N, ETA, y, start=surface.fit("product", N, ETA, y * 1.01))
    assert warm.values["alpha"] == pytest.approx(first.values["alpha"], rel=1e-4)


def test_duplicates_count_as_fewer_rows():
    d = np.tile([0.0, 0.5, 0.9, 0.25], len(N) // 4)
    y = by_hand("additive", PLANTED["additive"], N * (1 - d) ** 0.8, ETA)
    found = surface.fit("additive", N, ETA, y, d)
    assert found.values["delta"] == pytest.approx(0.8, rel=0.02)
    assert found.predict(1000.0, 0.2, 0.5) == pytest.approx(float(found.predict(1000 * 0.5**0.8, 0.2)), rel=0.01)
    assert np.isfinite(found.predict(1000.0, 0.2, 1.0))
    assert surface.left_out_rmse("additive", N, ETA, y, d) < 0.01


def test_elasticities_are_those_of_the_formula():
    v = PLANTED["product"]
    size, noise = surface.elasticity(fitted("product"), 500, 0.3)
    y = by_hand("product", v, 500, 0.3)
    assert size == pytest.approx(-v["alpha"] * (y - v["floor"]) / y, rel=0.01)
    assert noise == pytest.approx(v["beta"] * 0.3 / (0.3 + v["eta0"]) * (y - v["floor"]) / y, rel=0.01)
    assert surface.elasticity(fitted("additive"), 500, 0.0)[1] == 0.0


def test_what_a_noisy_row_is_worth():
    """Effective data with gamma 1: noisy rows are worth nothing; with gamma 2 they are worth less than nothing."""
    for gamma in (0.0, 1.0, 2.0):
        v = PLANTED["effective"] | {"gamma": gamma}
        found = surface.fit("effective", N, ETA, by_hand("effective", v, N, ETA))
        expected = ((1 - 0.4) ** gamma - (1 - 0.4)) / 0.4
        assert surface.exchange(found, 800, 0.4) == pytest.approx(expected, abs=0.01)
        assert surface.equal_size(found, 800, 0.4, 0.0) == pytest.approx(800 * 0.6**gamma, rel=0.01)


def test_along_an_iso_error_curve_the_error_is_one():
    found = fitted("additive")
    sizes = surface.iso_error(found, 0.9, [0.0, 0.1, 0.2])
    assert np.all(np.diff(sizes) > 0)
    assert found.predict(sizes, np.array([0.0, 0.1, 0.2])) == pytest.approx([0.9] * 3)
    assert np.isnan(surface.iso_error(found, 0.9, [0.6])).all()  # below the floor that noise makes


def test_what_cells_do_not_tell_is_said():
    flat = surface.fit("additive", N, ETA, np.full(len(N), 0.5) + 1e-3 * ETA)
    assert flat.at_bound or flat.values["A"] * 64 ** -flat.values["alpha"] < 0.01


@pytest.mark.parametrize(("n", "y", "words"), [
    (N, np.zeros(len(N)), "above 0"), (0 * N, np.ones(len(N)), "above 0"), (N[:3], np.ones(3), "3 cells"),
])  # fmt: skip
def test_what_cannot_be_fitted_is_refused(n, y, words):
    with pytest.raises(ValueError, match=words):
        surface.fit("additive", n, ETA[: len(n)], y)
