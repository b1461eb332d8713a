"""The simulator in a real browser: what it says is what the Python surfaces say, and beyond what was run nothing."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import report, slices, surface
from experiments.report import simulator
from tests.experiments import spanning
from tests.experiments.spanning import DESIGN
from tests.experiments.test_report import EVALUATION
from tests.experiments.test_simulator import HOSTILE

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

WIDTHS, SCHEMES = (360, 900, 1600), ("light", "dark")
READY = "#simulator-section[data-ready]"
PATIENCE = 120_000  # ms: of a busy machine
SIZES = [256, 512, 1024, 2048, 4096]
SET = """(values) => {
  for (const [name, value] of Object.entries(values)) {
    const slider = document.getElementById(`simulator-${name}`);
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  }
}"""
SOURCE = """(name) => {
  const found = Bokeh.documents.map((d) => d.get_model_by_name(name)).find((m) => m !== null).data;
  return Object.fromEntries(Object.entries(found).map(([key, column]) => [key, [...column]]));
}"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = tmp_path_factory.mktemp("simulator") / "simulator.html"
    made.write_text(simulator.page(spanning.found(), "Rows, noise and copies"))
    return made


@pytest.fixture
def shown(opened, path):
    found = opened(path)
    found.page.wait_for_selector(READY, timeout=PATIENCE)
    return found


def said(page) -> dict[str, float]:
    """The figures in full, as the section has them."""
    raw = page.evaluate("({ ...document.getElementById('simulator-section').dataset })")
    return {key: float(value) for key, value in raw.items() if key not in ("ready", "inside")}


def inside(page) -> bool:
    return page.evaluate("document.getElementById('simulator-section').dataset.inside") == "true"


def steps(n: float) -> int:
    return round(np.log2(n / SIZES[0]) * simulator.STEPS)


def move(page, n, eta, d) -> None:
    page.evaluate(SET, {"rows": steps(n), "noise": eta, "copies": d})


def python(one, n, eta, d) -> dict[str, float]:
    """The same figures by the Python surface."""
    made = one.prediction
    (low, loss, high), (run_low, _, run_high) = made.mean_band(n, eta, d), made.run_band(n, eta, d)
    figures = {"rows": n, "noise": eta, "copies": d, "loss": loss, "low": low, "high": high, "runLow": run_low,
               "runHigh": run_high, "leftOut": made.left_out}  # fmt: skip
    clean = surface.equal_size(made.fit, n, eta, 0.0, d) if eta > 0 else np.nan
    if np.isfinite(clean) and one.inside(*np.array([clean, 0.0, d])):
        figures |= dict(zip(("exchangeLow", "exchange", "exchangeHigh"), made.exchange(n, eta, d), strict=True))
    return {key: float(value) for key, value in figures.items()}


# --- what it says -----------------------------------------------------------------------------------------------------


def test_it_stands_at_a_measured_cell_and_says_what_the_surface_says(shown):
    one = spanning.found().slices[0]
    figures = said(shown.page)
    assert [figures["rows"], figures["noise"], figures["copies"]] == simulator.start_of(one)
    assert figures == pytest.approx(python(one, *simulator.start_of(one)), rel=1e-6)
    assert "exchange" in figures
    assert shown.page.inner_text("#simulator-loss") == f"{figures['loss']:.3g}"


@pytest.mark.parametrize(("name", "key", "times"), [
    ("rows", "ArrowLeft", 7), ("noise", "ArrowRight", 13), ("copies", "ArrowRight", 31), ("rows", "ArrowDown", 32),
    ("noise", "ArrowDown", 40),
])  # fmt: skip
def test_each_slider_moves_by_keyboard_and_the_figure_follows_the_surface(shown, name, key, times):
    before = said(shown.page)
    shown.page.focus(f"#simulator-{name}")
    for _ in range(times):
        shown.page.keyboard.press(key)
    after = said(shown.page)
    assert {axis for axis in ("rows", "noise", "copies") if after[axis] != before[axis]} == {name}
    assert after["loss"] != before["loss"]
    place = (after["rows"], after["noise"], after["copies"])
    assert after == pytest.approx(python(spanning.found().slices[0], *place), rel=1e-6)
    assert shown.complaints == []


def test_all_over_the_range_it_speaks_inside_the_hull_and_nowhere_else(shown):
    rng, page = np.random.default_rng(0), shown.page
    counted = [0, 0]
    for index, one in enumerate(spanning.found().slices):
        choose(page, one)
        for _ in range(60):
            n = SIZES[0] * 2 ** (rng.integers(-8, 80) / simulator.STEPS)
            # at half of the places on the planes that slices lie in
            eta, d = (round(x, 2) * rng.integers(0, 2) for x in rng.uniform(0, [1.0, 1.0]))
            move(page, n, eta, d)
            figures = said(page)
            place = (figures["rows"], figures["noise"], figures["copies"])
            assert place[1:] == pytest.approx((eta, d)) and place[0] == pytest.approx(n, rel=0.03)
            assert inside(page) == bool(one.inside(*np.array(place)))
            counted[inside(page)] += 1
            if inside(page):
                assert figures == pytest.approx(python(one, *place), rel=1e-6), index
            else:
                assert set(figures) == {"rows", "noise", "copies"}
    assert min(counted) >= 30


def choose(page, one) -> None:
    for i, key in enumerate(spanning.found().keys):
        page.select_option(f"#simulator-key-{i}", one.choice[key])


def test_another_kind_of_noise_moves_to_where_it_was_measured(shown):
    page, (_, swapped, concentrated) = shown.page, spanning.found().slices
    move(page, 256, 0.2, 0.25)
    for one in (swapped, concentrated):
        choose(page, one)
        assert inside(page)
        figures = said(page)
        assert figures == pytest.approx(python(one, *(figures[k] for k in ("rows", "noise", "copies"))), rel=1e-6)
        text = page.inner_text("[data-simulator-slice]:not([hidden])")
        assert f"with another {one.own[0]}" in " ".join(text.split())


def test_what_was_not_measured_together_is_refused(shown):
    page = shown.page
    page.select_option("#simulator-key-0", "concentrated")
    page.select_option("#simulator-key-1", "swapped_response")
    assert not inside(page)
    assert "not measured together" in page.inner_text("#simulator-where")
    assert set(said(page)) == {"rows", "noise", "copies"}
    assert page.locator("[data-simulator-slice]:not([hidden])").count() == 0


def test_outside_of_the_hull_it_greys_out_and_prints_no_figure(shown):
    page = shown.page
    move(page, 1024, 0.9, 0.0)
    assert page.inner_text("#simulator-loss") == page.inner_text("#simulator-exchange") == "–"
    assert page.inner_text("#simulator-mean") == page.inner_text("#simulator-run") == ""
    words = page.inner_text("#simulator-where")
    assert "Outside of what was measured: no figure." in words and "noise from 0 to 0.8" in words
    page.wait_for_timeout(300)
    assert page.evaluate("getComputedStyle(document.querySelector('.simulator .charts')).filter") == "grayscale(1)"
    assert page.evaluate(SOURCE, "rows.curve")["x"] == []  # along rows, noise stays where it is
    assert max(page.evaluate(SOURCE, "noise.curve")["x"]) == pytest.approx(0.8)
    assert all(page.evaluate(SOURCE, f"{name}.here")["x"] == [] for name in ("rows", "noise", "copies", "iso"))
    assert "Outside" in page.get_attribute("#simulator-figure-noise", "aria-label")
    move(page, 1024, 0.8, 0.0)
    assert page.inner_text("#simulator-where") == "" and inside(page)


def test_where_no_clean_set_was_measured_that_is_as_good_a_noisy_row_has_no_worth(shown):
    page = shown.page
    move(page, 256, 0.4, 0.0)
    assert inside(page) and "exchange" not in said(page)
    assert "fewer clean rows than were measured" in page.inner_text("#simulator-exchange-band")
    move(page, 256, 0.0, 0.0)
    assert "no noisy rows" in page.inner_text("#simulator-exchange-band")


# --- what it draws ----------------------------------------------------------------------------------------------------


def test_curves_and_bands_are_those_of_the_surface(shown):
    one = spanning.found().slices[0]
    move(shown.page, 2048, 0.3, 0.2)
    at = np.array([2048.0, 0.3, 0.2])
    for axis, name in enumerate(("rows", "noise", "copies")):
        drawn = {key: np.array(column) for key, column in shown.page.evaluate(SOURCE, f"{name}.curve").items()}
        points = np.tile(at, (len(drawn["x"]), 1))
        points[:, axis] = drawn["x"]
        within = points + 1e-6 * (at - points)  # the ends are on the hull's edge, give or take their rounding
        assert len(points) > 50 and one.inside(*within.T).all()
        low, middle, high = one.prediction.mean_band(*points.T)
        run_low, _, run_high = one.prediction.run_band(*points.T)
        expected = {"low": low, "middle": middle, "high": high, "runLow": run_low, "runHigh": run_high}
        for key, values in expected.items():
            assert drawn[key] == pytest.approx(values, rel=1e-6), (name, key)
        cells = shown.page.evaluate(SOURCE, f"{name}.cells")
        assert sorted(cells["y"]) == pytest.approx(sorted(one.values.mean(0)))
        assert shown.page.evaluate(SOURCE, f"{name}.here")["x"] == [at[axis]]


def test_along_the_iso_error_curve_the_loss_is_one(shown):
    one = spanning.found().slices[0]
    move(shown.page, 2048, 0.3, 0.0)
    drawn = shown.page.evaluate(SOURCE, "iso.curve")
    assert len(drawn["x"]) > 10
    loss = one.prediction.fit.predict(np.array(drawn["y"]), np.array(drawn["x"]), 0.0)
    assert loss == pytest.approx(float(one.prediction.fit.predict(2048, 0.3, 0.0)), rel=1e-6)
    for i in (0, len(drawn["x"]) // 2, -1):
        band = one.prediction.equal_size(2048, 0.3, drawn["x"][i], 0.0)
        assert [drawn[key][i] for key in ("low", "y", "high")] == pytest.approx(band, rel=1e-6)
    region = shown.page.evaluate(SOURCE, "iso.region")
    assert (min(region["low"]), max(region["high"])) == pytest.approx((256, 4096), rel=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_band_is_seen(opened, path, tmp_path, scheme):
    """Pixels of the figure: inside the hull some share is bluer than the ground, outside of it less."""
    found = opened(path, 900, scheme)
    found.page.wait_for_selector(READY, timeout=PATIENCE)

    def blue(name: str) -> float:
        found.page.wait_for_timeout(400)
        found.page.locator("#simulator-plot-rows").screenshot(path=tmp_path / f"{name}.png")
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"), float)
        return float(np.mean(pixels[..., 2] - pixels[..., 0] > 15))

    move(found.page, 1024, 0.2, 0.25)
    with_band = blue("inside")
    move(found.page, 1024, 0.9, 0.25)
    assert with_band > 0.05 > 5 * blue("outside")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens_from_disk_at_every_width(opened, path, tmp_path, width, scheme):
    found = opened(path, width, scheme)
    found.page.wait_for_selector(READY, timeout=PATIENCE)
    assert (found.requests, found.complaints) == ([], [])
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    assert found.page.locator(".simulator .plot canvas").count() >= 4
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    found.page.wait_for_timeout(400)
    found.page.screenshot(path=folder / f"simulator_{width}_{scheme}.png", full_page=True)
    assert (folder / f"simulator_{width}_{scheme}.png").stat().st_size > 30_000


def test_every_control_is_reached_by_keyboard(shown):
    reached = []
    for _ in range(12):
        shown.page.keyboard.press("Tab")
        reached.append(shown.page.evaluate("document.activeElement.id"))
    order = [f"simulator-{name}" for name in ("key-0", "key-1", "rows", "noise", "copies")]
    assert [name for name in reached if name in order] == order


def test_figures_say_what_they_show(shown):
    move(shown.page, 1024, 0.2, 0.25)
    words = shown.page.get_attribute("#simulator-figure-rows", "aria-label")
    assert "At rows 1,024, noise 0.2, copies 0.25: ood/nll" in words and "The curve goes from" in words
    assert "rows at noise" in shown.page.get_attribute("#simulator-figure-iso", "aria-label")
    assert shown.page.get_attribute("#simulator-rows", "aria-valuetext") == "1,024 rows"


# --- where it stands --------------------------------------------------------------------------------------------------


def test_hostile_names_are_inert(opened, tmp_path):
    found = spanning.found()
    nasty = tuple(replace(one, choice={k: v + HOSTILE for k, v in one.choice.items()}) for one in found.slices)
    made = replace(
        found, slices=nasty, metric=HOSTILE, axes=slices.Axes(HOSTILE, HOSTILE, HOSTILE), left_over=(HOSTILE,)
    )
    (tmp_path / "page.html").write_text(simulator.page(made, HOSTILE))
    page = opened(tmp_path / "page.html")
    page.page.wait_for_selector(READY, timeout=PATIENCE)
    page.page.select_option("#simulator-key-1", index=1)
    page.page.hover("#simulator-plot-noise")
    page.page.wait_for_timeout(500)
    assert (page.requests, page.complaints) == ([], [])
    assert HOSTILE in page.page.inner_text("#simulator-key-1")
    assert inside(page.page)


@pytest.fixture(scope="module")
def report_path(tmp_path_factory):
    design = [at for at in DESIGN if at["noise"] == "near_miss" and at["data.rows"] in (256, 1024, 4096)]
    cells, records = spanning.runs(design=design)
    out = tmp_path_factory.mktemp("report") / "reports" / "simulator"
    report.build("simulator", "T", cells, records, [], out, "command", "x: 1", evaluation=EVALUATION)
    return out / "index.html"


@pytest.mark.parametrize("framed", [False, True])
def test_it_works_inside_the_report_and_that_in_a_frame(opened, report_path, tmp_path, framed):
    shown = report_path
    if framed:
        shown = tmp_path / "frame.html"
        shown.write_text(
            f'<iframe sandbox="allow-scripts" width="880" height="800" src="{report_path.as_uri()}"></iframe>'
        )
    found = opened(shown)
    page = found.page.frames[-1]
    page.wait_for_selector(READY, timeout=PATIENCE)
    before = said(page)["loss"]
    page.evaluate(SET, {"noise": 0.1})
    assert said(page)["loss"] != before
    assert [r for r in found.requests if r != report_path.as_uri()] == []
    assert found.complaints == []
    assert report_path.stat().st_size < 4_000_000
    assert (report_path.parent / "simulator.html").stat().st_size < 2_000_000
