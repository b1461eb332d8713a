"""Surfaces over size and noise: forms fitted to the mean loss of cells, and what follows from a fit.

Arrays in, numbers out. With n rows of which a share eta is noisy, floor + ... of

    product      A n^-alpha (eta + eta0)^beta             noise takes a share of the loss whatever the size
    additive     A n^-alpha + B eta^beta                  noise has a floor of its own that no size removes
    effective    A (n (1 - eta)^gamma)^-alpha             noisy rows count as fewer rows
    interaction  A n^-alpha + B eta^beta + C n^-alpha eta^beta

Power laws in data after Hestness et al. 2017 (arXiv:1712.00409, section 3), the floor after Hoffmann et al. 2022
(arXiv:2203.15556, eq. 2). Fits are least squares in the logarithm of the loss with a soft-L1 loss, so that one bad
cell moves nothing much, bounded, and the best of several starts.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.optimize import least_squares

# Parameters of each form in order, with the range they are looked for in. Amplitudes are logarithms, relative to the
# largest loss at the geometric mean of the sizes; the floor is a share of the smallest loss.
_FLOOR, _AMPLITUDE, _SMALL, _POWER = (0.0, 0.999), (-8.0, 8.0), (-12.0, 8.0), (0.005, 6.0)
FORMS: dict[str, dict[str, tuple[float, float]]] = {
    "product": {"floor": _FLOOR, "A": _AMPLITUDE, "alpha": _POWER, "eta0": (-9.0, 0.7), "beta": _POWER},
    "additive": {"floor": _FLOOR, "A": _AMPLITUDE, "alpha": _POWER, "B": _SMALL, "beta": _POWER},
    "effective": {"floor": _FLOOR, "A": _AMPLITUDE, "alpha": _POWER, "gamma": (0.0, 30.0)},
    "interaction": {
        "floor": _FLOOR, "A": _AMPLITUDE, "alpha": _POWER, "B": _SMALL, "beta": _POWER, "C": _SMALL,
    },
}  # fmt: skip
DELTA = (0.0, 30.0)  # the exponent of duplication: n (1 - d)^delta rows count
UNIQUE = 1e-3  # a set is never less than this share unique: at d = 1 one row in a thousand is left
STARTS = 8
SOFT = 0.1  # residuals beyond this (in the logarithm) count linearly


@dataclass(frozen=True)
class Fit:
    """A fitted form. `values` are the parameters in their own units: floor and amplitudes as losses, n in rows.

    `delta` says how copies count, and is there if they were fitted; `kappa` (of another kind of noise: how many rows of
    the kind that was fitted one of its rows is as bad as) and `shift` (of another model: by how much the logarithm of
    the loss is higher) are there in what `borrow` makes.
    """

    form: str
    values: dict[str, float]
    rmse: float  # of the logarithm, over the cells that it was fitted to
    at_bound: tuple[str, ...]  # parameters that the cells do not tell: they lie at the end of their range
    theta: tuple[float, ...]  # where a fit to nearly the same cells may start

    def predict(self, n: np.ndarray, eta: np.ndarray, d: np.ndarray | float = 0.0) -> np.ndarray:
        """The loss at these sizes, noise shares and shares of duplicates (broadcast)."""
        v = self.values
        rows = np.asarray(n, float) * np.maximum(1 - np.asarray(d, float), UNIQUE) ** v.get("delta", 0.0)
        bad = v.get("kappa", 1.0) * np.asarray(eta, float)
        return np.exp(v.get("shift", 0.0)) * _curve(self.form, v, rows, bad)


def _curve(form: str, v: dict[str, float], n: np.ndarray, eta: np.ndarray) -> np.ndarray:
    least, rest = _parts(form, v, eta)
    return least + rest * n ** -v["alpha"]


def _parts(form: str, v: dict[str, float], eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) of the loss a + b n^-alpha, which every form is at one share of noise."""
    if form == "effective":
        return np.full_like(eta, v["floor"]), v["A"] * np.maximum(1 - eta, UNIQUE) ** (-v["alpha"] * v["gamma"])
    if form == "product":
        return np.full_like(eta, v["floor"]), v["A"] * (eta + v["eta0"]) ** v["beta"]
    noise = eta ** v["beta"]
    return v["floor"] + v["B"] * noise, v["A"] + v.get("C", 0.0) * noise


def fit(
    form: str,
    n: np.ndarray,
    eta: np.ndarray,
    y: np.ndarray,
    d: np.ndarray | None = None,
    *,
    start: Fit | None = None,
    seed: int = 0,
) -> Fit:
    """Fit one form to cells.

    Args:
        form: one of `FORMS`.
        n: (cells,) rows, above 0.
        eta: (cells,) share of noisy rows, 0 to 1.
        y: (cells,) mean loss of a cell, above 0 (nats, an error rate).
        d: (cells,) share of rows that are copies of others; with it n counts as n (1 - d)^delta.
        start: begin from this fit of the same form and from nowhere else: for refits to nearly the same cells.
        seed: of the starts.

    Raises:
        ValueError: a loss or size that is not above 0, or fewer cells than parameters.
    """
    n, eta, y = (np.asarray(a, float) for a in (n, eta, y))
    bounds = FORMS[form] | ({"delta": DELTA} if d is not None else {})
    if not (y > 0).all() or not (n > 0).all():
        raise ValueError("a surface is fitted to losses and sizes above 0")
    if len(y) < len(bounds):
        raise ValueError(f"{len(y)} cells cannot tell the {len(bounds)} parameters of the {form} form")
    keys, (low, high) = list(bounds), np.array(list(bounds.values())).T
    unit, least, middle = y.max(), y.min(), float(np.exp(np.log(n).mean()))
    unique = np.ones_like(n) if d is None else np.maximum(1 - np.asarray(d, float), UNIQUE)
    target = np.log(y)

    def own_units(theta: np.ndarray, scale: float) -> dict[str, float]:
        v = dict(zip(keys, theta.tolist(), strict=True))
        v["floor"] *= float(least)
        for key in ("A", "B", "C"):
            if key in v:
                v[key] = float(unit * np.exp(v[key]) * (scale ** v["alpha"] if key != "B" else 1.0))
        if "eta0" in v:
            v["eta0"] = float(np.exp(v["eta0"]))
        return v

    def residual(theta: np.ndarray) -> np.ndarray:
        v = own_units(theta, 1.0)
        return np.log(_curve(form, v, n / middle * unique ** v.get("delta", 0.0), eta)) - target

    rng = np.random.default_rng([seed, zlib.crc32(f"surface.{form}".encode())])
    first = {"floor": 0.5, "A": 0.0, "alpha": 0.5, "B": 0.0, "beta": 1.0, "C": -1.0, "eta0": -2.0, "gamma": 1.0}
    begin = np.array([first.get(key, 1.0) for key in keys])
    spread = {"floor": 0.5, "alpha": 0.4, "beta": 0.4, "gamma": 1.0, "delta": 1.0}
    starts = [begin] + [
        begin + rng.uniform(-1, 1, len(keys)) * np.array([spread.get(key, 1.5) for key in keys])
        for _ in range(STARTS - 1)
    ]
    if start is not None:
        starts = [np.array(start.theta)]
    inside = 1e-6 * (high - low)
    solve = partial(least_squares, residual, bounds=(low, high), loss="soft_l1", f_scale=SOFT, max_nfev=400)
    tight = {"ftol": 1e-10, "xtol": 1e-10, "gtol": 1e-10}
    found = min((solve(np.clip(s, low + inside, high - inside), **tight) for s in starts), key=lambda r: r.cost)
    ends = 1e-3 * (high - low)
    # a floor of nothing and an exponent of nothing are answers; so is an amplitude that has gone
    told = {"floor", "gamma", "delta", "B", "C", "eta0"}
    at = [
        key
        for key, value, lo, hi, end in zip(keys, found.x, low, high, ends, strict=True)
        if value > hi - end or (value < lo + end and key not in told)
    ]
    rmse = float(np.sqrt(np.mean(residual(found.x) ** 2)))
    return Fit(form, own_units(found.x, middle), rmse, tuple(at), tuple(found.x.tolist()))


def left_out(
    form: str,
    n: np.ndarray,
    eta: np.ndarray,
    y: np.ndarray,
    d: np.ndarray | None = None,
    *,
    start: Fit | None = None,
    seed: int = 0,
) -> tuple[list[Fit], np.ndarray]:
    """The fit without each cell in turn, and (cells,) the log error of its prediction of that cell."""
    n, eta, y = (np.asarray(a, float) for a in (n, eta, y))
    copies = np.zeros(len(y)) if d is None else np.asarray(d, float)
    whole = fit(form, n, eta, y, d, start=start, seed=seed)
    others = []
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        others.append(fit(form, n[rest], eta[rest], y[rest], None if d is None else copies[rest], start=whole))
    errors = [np.log(f.predict(n[i], eta[i], copies[i]) / y[i]) for i, f in enumerate(others)]
    return others, np.array(errors, float)


def left_out_rmse(form: str, n: np.ndarray, eta: np.ndarray, y: np.ndarray, d: np.ndarray | None = None) -> float:
    """Root mean square of the log error at each cell by a fit to all the others (leave-one-cell-out)."""
    return float(np.sqrt(np.mean(left_out(form, n, eta, y, d)[1] ** 2)))


# What a borrowed surface may have of its own, with the range it is looked for in.
OWN: dict[str, tuple[float, float]] = {"kappa": (0.0, 30.0), "delta": DELTA, "shift": (-6.0, 6.0)}


def borrow(f: Fit, own: Sequence[str], n: np.ndarray, eta: np.ndarray, y: np.ndarray, d: np.ndarray) -> Fit:
    """A surface with the parameters of another but for those named in `own` (of `OWN`), fitted to these few cells.

    Raises:
        ValueError: fewer cells than parameters of its own.
    """
    if len(y) < len(own):
        raise ValueError(f"{len(y)} cells cannot tell {len(own)} parameters")
    low, high = np.array([OWN[key] for key in own]).T

    def given(theta: np.ndarray) -> Fit:
        return replace(f, values=f.values | dict(zip(own, theta.tolist(), strict=True)))

    def residual(theta: np.ndarray) -> np.ndarray:
        return np.log(given(theta).predict(n, eta, d) / y)

    first = {"kappa": 1.0, "delta": f.values.get("delta", 1.0), "shift": 0.0}
    begin = np.clip([first[key] for key in own], low + 1e-3, high - 1e-3)
    found = least_squares(residual, begin, bounds=(low, high), loss="soft_l1", f_scale=SOFT)
    at = tuple(key for key, x, lo, hi in zip(own, found.x, low, high, strict=True) if x > hi - 1e-3 * (hi - lo))
    rmse = float(np.sqrt(np.mean(residual(found.x) ** 2)))
    return replace(given(found.x), rmse=rmse, at_bound=(*f.at_bound, *at))


def elasticity(f: Fit, n: float, eta: float) -> tuple[float, float]:
    """(d ln y / d ln n, d ln y / d ln eta) at one point: the per cent that the loss changes with one per cent more."""

    def slope(by: tuple[float, float]) -> float:
        up, down = (f.predict(np.array(n * by[0] ** s), np.array(eta * by[1] ** s)) for s in (1, -1))
        return float(np.log(up / down) / (2 * np.log(max(by))))

    step = float(np.exp(1e-4))
    return slope((step, 1.0)), slope((1.0, step)) if eta > 0 else 0.0


def equal_size(f: Fit, n: float, eta: float, other: float, d: float = 0.0) -> float:
    """How many rows with noise share `other` have the loss that `n` rows with share `eta` have; nan if none do.

    Both sets hold the same share `d` of copies.
    """
    unique = max(1 - d, UNIQUE) ** f.values.get("delta", 0.0)
    return _size_for(f, float(f.predict(np.array(n), np.array(eta), d)), other) / unique


def exchange(f: Fit, n: float, eta: float, d: float = 0.0) -> float:
    """How many clean rows a noisy row is worth, among `n` rows of which a share `eta` > 0 is noisy.

    That of (rows of a clean set as good as this one, less the clean rows in this one) / noisy rows in it: 1 if noise
    does nothing, 0 if noisy rows might as well be dropped, below 0 if they had better be. Both sets hold the same share
    `d` of copies.
    """
    return (equal_size(f, n, eta, 0.0, d) - n * (1 - eta)) / (n * eta)


def iso_error(f: Fit, y: float, etas: Sequence[float] | np.ndarray) -> np.ndarray:
    """(etas,) how many rows reach the loss `y` at each noise share; nan where no number does."""
    return np.array([_size_for(f, y, float(eta)) for eta in etas])


def _size_for(f: Fit, y: float, eta: float) -> float:
    """The rows without copies, if there are any between e^-20 and e^60."""
    v = f.values
    least, rest = _parts(f.form, v, np.array(v.get("kappa", 1.0) * eta))
    above = y / np.exp(v.get("shift", 0.0)) - float(least)
    if above <= 0 or rest <= 0:
        return float("nan")
    log_n = np.log(float(rest) / above) / v["alpha"]
    return float(np.exp(log_n)) if -20 < log_n < 60 else float("nan")
