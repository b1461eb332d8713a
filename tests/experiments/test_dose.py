import html
import re
import shutil
from functools import cache
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from experiments import report, surface
from experiments import table as tables
from experiments.report import dose, entropy, iso, lines
from experiments.report.figures import COLOURS, NARROW, STYLE, WIDE
from experiments.report.labels import within
from tests.experiments.synthetic import BEST, cell, record

# in one process, that the report is built once
pytestmark = [pytest.mark.xdist_group("dose"), pytest.mark.usefixtures("few_drawings")]

EVALUATION = SimpleNamespace(best=BEST, primary="ood/em", mode="max")
ENTROPY = {"near_miss": 5.0, "swapped_response": 9.0, "truncated": 4.0, "off_format": 3.0, "contradictory": 5.2}


def made(plan, pairs=4, bases=2, missing=lambda c: False):
    """Cells and records of (arm, levels, top or {measure: value}) entries."""
    rng = np.random.default_rng(0)
    cells, records = [], {}
    for arm, levels, top in plan:
        for pair in range(pairs):
            one = cell(arm, pair, levels, bases=bases)
            cells.append(one)
            if missing(one):
                continue
            score = top["em"] if isinstance(top, dict) else top
            score += 0.02 * (pair % bases) + 0.01 * rng.standard_normal()
            found = record(one, [0.1 * score, 0.6 * score, 0.9 * score, score])
            if rows := levels.get("data.rows"):
                found["data"] |= {"rows": rows, "unique_rows": round(rows * (1 - levels.get("duplication.rate", 0)))}
            if isinstance(top, dict):
                for point in ("best_val", "end"):
                    suites = found["metrics"][point]
                    if "nll" in top:
                        nll = top["nll"] * float(np.exp(0.02 * rng.standard_normal()))
                        suites["ood"] = suites["ood"] | {"nll": {"value": nll, "n": 600}}
                    if "entropy" in top:
                        value = top["entropy"] + 0.05 * rng.standard_normal()
                        suites["entity"] = suites["entity"] | {"entropy_first": {"value": value, "n": 200}}
                        suites["theory"] = {"entropy_first": {"value": 0.9 * top["entropy"], "n": 200}}
            records[one.run_id] = found
    return cells, records


def noise(rate, kind="near_miss", model="micro", gradients=False):
    levels = {"noise": kind, "noise.rate": rate, "model": model, "evaluation.gradients": gradients}
    return "full", levels, {"em": 0.85 - 0.7 * rate, "entropy": 0.3 + ENTROPY[kind] * rate}


def label_noise():
    near = [noise(rate) for rate in (0.0, 0.2, 0.4, 0.6, 0.8)]
    kinds = [noise(0.4, kind) for kind in ENTROPY if kind != "near_miss"]
    sizes = [noise(rate, model=model) for model in ("micro_half", "micro_2x") for rate in (0.0, 0.4)]
    return made([*near, *kinds, *sizes, noise(0.4, gradients=True)])


def copies(rate, source="random", k=None, mode="replace", arm="duplicated", rows=4096):
    levels = {"duplication": source, "duplication.rate": rate, "duplication.k": k, "duplication.mode": mode}
    loss = 0.8 * rate**4 if source == "concentrated" else 0.3 * rate**3
    if rate == 0.5 and k:
        loss = 0.25 - 0.04 * np.log2(k) + 0.3 * (k == 64)
    return arm, levels | {"data.rows": rows}, 0.85 - loss - (0.1 * np.log2(4096 / rows) if arm == "full" else 0)


def duplication():
    rates = [copies(rate) for rate in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)]
    some = [copies(rate, "concentrated", 16) for rate in (0.25, 1.0)]
    many = [copies(0.5, "concentrated", k) for k in (4, 16, 64, 256, 1024)]
    other = [copies(rate, mode="append") for rate in (0.25, 1.0)]
    full = [copies(0.0, "none", arm="full", rows=rows) for rows in (2048, 4096, 410, 1024, 1536, 6144)]
    return made([*rates, *some, *many, *other, *full])


def pareto(sizes=(256, 512, 1024, 4096), rates=(0.0, 0.2, 0.4, 0.6, 0.8), **options):
    plan = []
    for rate in rates:
        for rows in sizes:
            nll = 0.12 + 136 * rows**-0.83 + 2.68 * rate**0.99
            top = {"em": 0.9 * np.exp(-0.4 * nll), "nll": nll, "entropy": 0.2 + 5 * rate}
            plan.append(("full", {"noise": "near_miss", "noise.rate": rate, "data.rows": rows}, top))
    return made(plan, **options)


def build(out, cells, records, evaluation=EVALUATION, title="A title"):
    report.build("e", title, cells, records, [], out, "python", "x: 1", evaluation=evaluation)
    return out


def table_of(cells, records):
    return tables.runs_table(cells, records, BEST)


def page_of(out):
    return (out / "index.html").read_text()


def drawn(out):
    return {path.stem for path in (out / "figures").glob("*.svg")}


def alts(out):
    """The words of each figure by its first ones, as a reader of the page hears them."""
    found = re.findall(r'<svg [^>]*aria-label="([^"]*)"', page_of(out))
    return {html.unescape(text) for text in found}


def alt(out, start):
    (text,) = [text for text in alts(out) if text.startswith(start)]
    return text


DOSE, ENTROPY_ALT, ISO = "Line chart of ood/em over levels", "Chart of the entropy", "Chart of rows over"


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Reports by name, each built when a test first asks for it."""
    folder = tmp_path_factory.mktemp("dose")

    @cache
    def report_of(name):
        made = PLANS[name]()
        return SimpleNamespace(out=build(folder / name, *made), made=made)

    return report_of


PLANS = {"label_noise": label_noise, "duplication": duplication, "pareto": pareto}


# --- what is drawn where --------------------------------------------------------------------------------------------


def test_figures_are_drawn_where_there_is_data_for_them(reports, tmp_path):
    assert {name: drawn(reports(name).out) - {"curves", "cost", "arms"} for name in PLANS} == {
        "label_noise": {"dose", "entropy"},
        "duplication": {"dose"},
        "pareto": {"dose", "entropy", "iso_error"},
    }
    two = build(tmp_path / "two", *made([copies(rate) for rate in (0.0, 0.5)]))
    assert drawn(two) == {"curves", "cost", "arms"}
    cells, _ = duplication()
    assert drawn(build(tmp_path / "none", cells, {})) == set()
    assert all("Level by level" not in page_of(tmp_path / name) for name in ("two", "none"))


def test_figures_go_when_their_data_do(reports, tmp_path):
    shutil.copytree(reports("pareto").out, tmp_path, dirs_exist_ok=True)
    assert "iso_error" in drawn(tmp_path)
    assert drawn(build(tmp_path, *pareto(sizes=(512, 1024), rates=(0.0, 0.4), pairs=2))) == {"curves", "cost", "arms"}


def test_two_builds_are_equal_byte_by_byte(reports, tmp_path):
    one = reports("pareto")  # it has every figure
    again = build(tmp_path, *one.made)
    for path in sorted(one.out.rglob("*")):
        assert path.is_dir() or path.read_bytes() == (again / path.relative_to(one.out)).read_bytes(), path


# --- lines ----------------------------------------------------------------------------------------------------------


def test_what_is_drawn_are_means_over_pairs(reports):
    cells, records = reports("label_noise").made
    ((panel,),) = [dose.panels(table_of(cells, records), EVALUATION)]
    (line,) = panel.lines
    assert (panel.column, panel.left_out, line.group["model"]) == ("noise.rate", 0, "micro")
    assert list(line.x) == [0.0, 0.2, 0.4, 0.6, 0.8]
    for x, mean, pairs in zip(line.x, line.mean, line.pairs.T, strict=True):
        own = [
            records[c.run_id]["metrics"]["best_val"]["ood"]["em"]["value"]
            for c in cells
            if c.levels == {"noise": "near_miss", "noise.rate": x, "model": "micro", "evaluation.gradients": False}
        ]
        assert mean == pytest.approx(np.mean(own))
        assert sorted(pairs) == pytest.approx(sorted(own))
        assert f"{mean:.2f} at {x:g}" in alt(reports("label_noise").out, DOSE)
    assert (line.low < line.mean).all() and (line.mean < line.high).all()


def test_each_combination_with_three_levels_is_a_line(reports):
    found = {panel.column: panel for panel in dose.panels(table_of(*reports("duplication").made), EVALUATION)}
    assert {name: [(line.label, list(line.x)) for line in panel.lines] for name, panel in found.items()} == {
        "duplication.rate": [
            ("duplication=random", [0, 0.1, 0.25, 0.5, 0.75, 0.9]),
            ("duplication=concentrated", [0.25, 0.5, 1]),
        ],
        "duplication.k": [("duplicated", [4, 16, 64, 256, 1024])],
        "data.rows": [("full", [410, 1024, 1536, 2048, 4096, 6144])],
    }


def test_lines_stand_in_the_order_of_their_levels(tmp_path):
    cells, records = pareto(sizes=(4096, 256, 1024), rates=(0.4, 0.0, 0.8), pairs=2)
    found = {panel.column: panel for panel in dose.panels(table_of(cells, records), EVALUATION)}
    assert [line.label for line in found["data.rows"].lines] == ["rate=0", "rate=0.4", "rate=0.8"]
    assert [line.label for line in found["noise.rate"].lines] == ["rows=256", "rows=1024", "rows=4096"]
    text = alt(build(tmp_path, cells, records), DOSE)
    assert text.index("rows=256 ") < text.index("rows=1024 ") < text.index("rows=4096 ")
    assert text.index("rate=0 ") < text.index("rate=0.4 ") < text.index("rate=0.8 ")


def test_a_level_without_runs_is_no_point_and_may_cost_the_line():
    def table(lost):
        levels = [copies(rate) for rate in (0.0, 0.25, 0.5, 0.75)]
        return table_of(*made(levels, missing=lambda c: c.levels["duplication.rate"] in lost))

    (panel,) = dose.panels(table({0.5}), EVALUATION)
    assert list(panel.lines[0].x) == [0, 0.25, 0.75]
    assert dose.panels(table({0.5, 0.75}), EVALUATION) == []


def test_a_line_is_about_the_pairs_that_have_all_of_its_levels(tmp_path):
    levels = [copies(0.0, "none", arm="full", rows=rows) for rows in (256, 1024, 4096)]
    cells, records = made(levels, pairs=6, missing=lambda c: c.levels["data.rows"] == 1024 and c.seeds["pair"] > 2)
    table = table_of(cells, records)
    (panel,) = dose.panels(table, EVALUATION)
    (line,) = panel.lines
    rows = tables.measured(table, "ood/em", "best_val")
    first = rows[(rows["data.rows"] == 4096) & (rows["seed_pair"] <= 2)]["value"].mean()
    assert line.left_out == 3 and len(line.pairs) == 3 and line.mean[-1] == pytest.approx(first)
    assert "a line is about those that have all of its levels" in page_of(build(tmp_path, cells, records))
    # two levels of different pairs share none: then each is what it is
    cells, records = made(levels, pairs=4, missing=lambda c: (c.levels["data.rows"] > 1000) == (c.seeds["pair"] > 1))
    ((line,),) = [panel.lines for panel in dose.panels(table_of(cells, records), EVALUATION)]
    assert line.left_out == 0 and np.isfinite(line.mean).all()


def test_the_null_model_of_copies_is_the_unique_rows_alone(reports):
    cells, records = reports("duplication").made
    table = table_of(cells, records)
    found = {panel.column: panel for panel in dose.panels(table, EVALUATION)}
    random, concentrated = found["duplication.rate"].unique
    # full was run with 4096, 2048, 1024 and 410 rows: as many as are unique at 0, .5, .75 and .9
    assert np.isfinite(random).tolist() == [True, False, False, True, True, True]
    rows = tables.measured(table, "ood/em", "best_val")
    alone = rows[(rows["arm"] == "full") & (rows["data.rows"] == 2048)]
    assert random[3] == pytest.approx(alone["value"].mean())
    # where only two pairs have both, they say how far apart
    (panel,) = [
        p
        for p in dose.panels(table[~table["run_id"].isin(alone[alone["seed_pair"] > 1]["run_id"])], EVALUATION)
        if p.column == "duplication.rate"
    ]
    line = panel.lines[0]
    assert panel.unique[0][3] == pytest.approx(
        line.mean[3] + alone[alone["seed_pair"] <= 1]["value"].mean() - line.pairs[:2, 3].mean()
    )
    assert np.isfinite(concentrated).tolist() == [False, True, False]  # .25, .5 and 1 of 4096 rows
    assert np.isnan(found["data.rows"].unique[0]).all()
    said = alt(reports("duplication").out, DOSE)
    assert (
        f"full with the unique rows of duplication=random alone: {random[0]:.2f} at 0, {random[3]:.2f} at 0.5" in said
    )
    assert "unique_rows_alone" in (reports("duplication").out / "figures" / "dose.csv").read_text().splitlines()[0]


def test_of_many_lines_those_with_most_levels_are_drawn_and_the_rest_counted(tmp_path):
    plan = [
        ("full", {"noise.rate": rate, "data.rows": rows}, 0.5)
        for rate in np.arange(10) / 10
        for rows in ((256, 512, 1024) if rate in (0.0, 0.3) else (256, 512, 1024, 2048))
    ]
    cells, records = made(plan, pairs=2)
    found = {panel.column: panel for panel in dose.panels(table_of(cells, records), EVALUATION)}
    kept = [line.label for line in found["data.rows"].lines]
    assert kept == [f"rate={rate}" for rate in (0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)]
    assert found["data.rows"].left_out == 2
    assert "lines with most levels are drawn, and 2 more stand" in page_of(build(tmp_path, cells, records))


def test_switches_and_names_are_no_axes():
    frame = pd.DataFrame({"a": [True, False, None], "b": ["x", 1, 2], "c": [1, None, "2.5"], "d": [None] * 3})
    assert [name for name in frame if lines.numeric(frame, name)] == ["c"]


def test_keys_of_one_last_name_are_told_apart():
    groups = [{"arm": "a", "noise.rate": n, "duplication.rate": d} for n in (0, 1) for d in (0, 1)]
    assert lines.names_of(groups)[1] == "noise.rate=0 duplication.rate=1"


def test_pairs_are_thin_lines_only_where_they_do_not_crowd(tmp_path):
    def count(rates):
        out = build(tmp_path / str(len(rates)), *pareto(rates=rates, sizes=(256, 1024, 4096), pairs=2))
        return (out / "figures" / "dose.svg").read_text().count("stroke-opacity: 0.35")

    assert count((0.0, 0.4)) == 2 * 2  # two lines over rows, two pairs each; the rates are too few for a panel
    assert count((0.0, 0.1, 0.2, 0.4, 0.8)) == 3 * 2  # five lines over rows are too many, three over the rate are not


# --- labels ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def light():
    with matplotlib.rc_context(STYLE):
        yield {key: colours[0] for key, colours in COLOURS.items()}


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("words", ["rows={}", "duplication=concentrated noise.rate=0.{} k=16", "x" * 200 + "{}"])
def test_eight_labels_do_not_touch_and_stay_on_the_figure(light, width, words):
    x, y = np.array([0.0, 0.5, 1.0]), np.array([0.1, 0.5, 0.9])
    eight = [lines.Line(words.format(i), {}, x, y + 0.001 * i, y - 0.01, y + 0.02, y[None]) for i in range(8)]
    panel = dose.Panel("noise.rate", eight, [np.full(3, np.nan)] * 8)
    figure = dose._figure([panel], "title", width, light)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    (ax,) = figure.axes
    texts = [t for t in [*ax.texts, *(ax.get_legend().get_texts() if ax.get_legend() else [])] if t.get_text()]
    boxes = [Text.get_window_extent(text, renderer) for text in [*texts, ax.xaxis.label, ax.title, ax._left_title]]
    boxes = [box for box in boxes if box.width]
    plt.close(figure)
    assert len(texts) == 8
    whole = figure.bbox
    assert all(box.y0 >= whole.y0 and box.y1 <= whole.y1 and box.x1 <= whole.x1 for box in boxes)
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_places_are_moved_between_the_ends_in_their_order():
    assert within([0.9, 1.0, 1.1], 0.1, 0.0, 1.0) == pytest.approx([0.8, 0.9, 1.0])
    assert within([0.1, -0.1, 0.0], 0.1, 0.0, 1.0) == pytest.approx([0.2, 0.0, 0.1])
    assert within([0.2, 0.5], 0.1, 0.0, 1.0) == [0.2, 0.5]
    assert within([], 0.1, 0.0, 1.0) == []


# --- entropy --------------------------------------------------------------------------------------------------------


def test_entropy_is_shown_over_the_rate_and_by_kind_beside_the_closed_form(reports):
    cells, records = reports("label_noise").made
    found = entropy.entropies(table_of(cells, records))
    ((line, form),) = found.lines
    assert line.label == "near_miss"
    assert form.mean == pytest.approx([0.9 * (0.3 + 5 * rate) for rate in (0.0, 0.2, 0.4, 0.6, 0.8)])
    own = [
        records[c.run_id]["metrics"]["end"]["entity"]["entropy_first"]["value"]
        for c in cells
        if c.levels == {"noise": "near_miss", "noise.rate": 0.6, "model": "micro", "evaluation.gradients": False}
    ]
    assert line.mean[3] == pytest.approx(np.mean(own))
    assert [one.label for one, _ in found.kinds] == [f"{kind}, rate 0.4" for kind in ENTROPY]
    assert [form.mean[0] for _, form in found.kinds] == pytest.approx([0.9 * (0.3 + 0.4 * v) for v in ENTROPY.values()])
    text = alt(reports("label_noise").out, ENTROPY_ALT)
    for one, form in found.kinds:
        assert f"{one.label}: measured {one.mean[0]:.2f}, closed form {form.mean[0]:.2f}" in text


def test_without_a_closed_form_there_is_no_figure_of_entropy():
    cells, records = label_noise()
    for one in records.values():
        for suites in one["metrics"].values():
            suites.pop("theory", None)
    assert entropy.entropies(table_of(cells, records)) is None


def test_kinds_alone_are_enough_for_a_figure_and_one_is_not():
    found = entropy.entropies(table_of(*made([noise(0.4, kind) for kind in ENTROPY])))
    assert (len(found.lines), len(found.kinds)) == (0, 5)
    assert entropy.entropies(table_of(*made([noise(0.4)]))) is None


# --- iso-error curves -----------------------------------------------------------------------------------------------


def test_the_surface_is_that_of_the_cell_means(reports):
    cells, records = reports("pareto").made
    found = iso.measured(table_of(cells, records))
    assert len(found.loss) == 20
    for n, eta, loss in zip(found.n, found.eta, found.loss, strict=True):
        own = [
            records[c.run_id]["metrics"]["best_val"]["ood"]["nll"]["value"]
            for c in cells
            if (c.levels["data.rows"], c.levels["noise.rate"]) == (n, eta)
        ]
        assert loss == pytest.approx(np.mean(own))
    for form, error in found.left_out.items():
        assert error == pytest.approx(surface.left_out_rmse(form, found.n, found.eta, found.loss))
    assert list(found.left_out.values()) == sorted(found.left_out.values())
    assert found.best.form == next(iter(found.left_out)) == "additive"  # as planted
    assert found.best.values["alpha"] == pytest.approx(0.83, abs=0.1)


def test_form_parameters_and_error_are_said(reports):
    found = iso.measured(table_of(*reports("pareto").made))
    said = [page_of(reports("pareto").out), (reports("pareto").out / "REPORT.md").read_text().replace("\\", "")]
    for text in said:
        assert "equal loss by the additive form" in text
        assert f"off by {found.left_out['additive']:.3g} in the logarithm" in text
        for key, value in found.best.values.items():
            assert f"{key} {value:.3g}" in text
        for form in ("product", "effective", "interaction"):
            assert f"{form} {found.left_out[form]:.3g}" in text
    words = alt(reports("pareto").out, ISO)
    assert f"{found.loss[0]:.2f} at 256 rows and 0" in words
    assert "more rows than there are" in words  # a floor of noise that no size removes


def test_every_cell_and_curve_is_drawn_and_labelled(reports):
    found = iso.measured(table_of(*reports("pareto").made))
    text = (reports("pareto").out / "figures" / "iso_error.svg").read_text()
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    assert all(f"{loss:.2f}" in shown for loss in found.loss)
    assert len(iso.losses_of(found)) == iso.CURVES
    assert all(f"{loss:g}" in shown for loss in iso.losses_of(found))
    assert all(found.loss.min() < loss < found.loss.max() for loss in iso.losses_of(found))


def test_a_cell_that_a_pair_lacks_is_left_out_and_too_few_give_no_surface():
    lost = {(256, 0.8)}
    one = pareto(missing=lambda c: (c.levels["data.rows"], c.levels["noise.rate"]) in lost and c.seeds["pair"] == 1)
    assert len(iso.measured(table_of(*one)).loss) == 19
    assert iso.measured(table_of(*pareto(sizes=(256, 512), pairs=2))) is None
    assert iso.measured(table_of(*label_noise())) is None


# --- hostile words --------------------------------------------------------------------------------------------------


def test_names_of_arms_and_levels_are_no_markup(tmp_path):
    nasty = '<script>alert("x")</script> $x^2$ & more'
    plan = [
        (arm, {"noise": kind, "noise.rate": rate}, {"em": 0.5 - rate / 4, "entropy": 1 + rate})
        for arm in ("full", nasty)
        for kind in ("near_miss", nasty)
        for rate in (0.0, 0.2, 0.4)
    ]
    out = build(tmp_path, *made(plan, pairs=2))
    assert {"dose", "entropy"} <= drawn(out)
    assert page_of(out).count("<script") == 1  # its own
    assert all("<script" not in (out / "figures" / f"{name}.svg").read_text() for name in ("dose", "entropy"))
    assert nasty in alt(out, DOSE)


def test_less_being_better_is_said(tmp_path):
    evaluation = SimpleNamespace(best=tables.Best("validation", "nll", "min"), primary="ood/nll", mode="min")
    out = build(tmp_path, *pareto(pairs=2), evaluation=evaluation)
    assert "ood/nll (less is better)" in (out / "figures" / "dose.svg").read_text()
