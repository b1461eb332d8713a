"""Whatever arms and claims are called, words stay on the figures and off each other."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from experiments import claims as judging
from experiments import report
from experiments import table as tables
from experiments.report import curves, forest, iso, labels, pareto, suite_curves
from experiments.report.figures import COLOURS, NARROW, STYLE, WIDE
from tests.experiments import test_dose as made
from tests.experiments.synthetic import BEST, cell, record
from tests.experiments.test_claims import claim

EVALUATION = SimpleNamespace(best=BEST, primary="ood/em", mode="max")
LEVELS = {"duplication.mode": ("replace", "append"), "duplication.kind": ("exact", "near"), "noise.rate": (0.25, 0.5)}


@pytest.fixture(scope="module")
def content():
    """Eight arms of one name that only three levels tell apart, and claims about them."""
    cells = []
    for i in range(8):
        levels = {key: values[i >> bit & 1] for bit, (key, values) in enumerate(LEVELS.items())}
        cells += [cell("duplicated", pair, {"duplication": "concentrated", **levels}) for pair in range(3)]
    records = {c.run_id: record(c, [0.1, 0.3, 0.5, 0.6 + 0.02 * c.seeds["pair"]]) for c in cells}
    table = tables.runs_table(cells, records, BEST)
    first = {"arm": "duplicated", "duplication.mode": "append", "duplication.kind": "near", "noise.rate": 0.25}
    some = [
        claim(id="as_it_is", treatment=first, control=first | {"noise.rate": 0.5}),
        claim(id="of_a_very_long_name_that_goes_on", treatment=first, control={"arm": "duplicated", "noise.rate": 0.5,
              "duplication.mode": "replace", "duplication.kind": "exact"}),
    ]  # fmt: skip
    judged = judging.judge(some, table, best=BEST, experiment="e")
    assert all(one["estimate"] is not None for one in judged)
    return report._content("e", "", table, {}, judged, "", "", EVALUATION, {}), table


def boxes(figure):
    """The words of a figure that are drawn, and where they stand."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    axes = [ax for ax in figure.axes if ax.get_visible()]
    ticks = {id(label) for ax in axes for axis in (ax.xaxis, ax.yaxis) for label in axis.get_ticklabels(which="both")}
    texts = [text for ax in axes for text in ax.findobj(Text) if id(text) not in ticks]
    texts += [text for legend in figure.legends for text in legend.get_texts()] + figure.texts
    texts += [tick.label1 for ax in axes for axis in (ax.xaxis, ax.yaxis) for tick in axis._update_ticks()]
    found = {id(text): (text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_visible()}
    return [(words, box) for words, box in found.values() if words.strip() and box.width]


def on_the_figure(plan, width):
    with matplotlib.rc_context(STYLE):
        figure = plan.draw(width, {key: colours[0] for key, colours in COLOURS.items()})
        found, whole = boxes(figure), figure.bbox
        plt.close(figure)
    for words, box in found:
        assert box.x0 >= whole.x0 - 1 and box.x1 <= whole.x1 + 1, (words, box, whole)
        assert box.y0 >= whole.y0 - 1 and box.y1 <= whole.y1 + 1, (words, box, whole)
    return found


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", ["curves", "arms", "suites", "cost", "claims"])
def test_words_stay_on_the_figure_and_off_each_other(content, name, width):
    all_of_it, table = content
    suites = ("entity", "wording", "composition")
    plans = [*curves.together(all_of_it), *curves.apart(all_of_it), *pareto.plans(all_of_it), *forest.plans(all_of_it)]
    plans += suite_curves.plans(all_of_it, table, suites)
    (plan,) = [plan for plan in plans if plan.name == name]
    found = on_the_figure(plan, width)
    words = [one for one in found if any(c.isalpha() for c in one[0])]
    assert len(words) >= (4 if name == "claims" else 9)
    for i, (text, box) in enumerate(words):
        for other, beside in words[i + 1 :]:
            assert not box.overlaps(beside), (text, other)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_losses_of_curves_and_sizes_of_cells_stay_on_the_figure(width):
    table = made.table_of(*made.pareto())
    (plan,) = iso.plans(table)
    on_the_figure(plan, width)


def test_intervals_of_two_pairs_leave_something_to_be_seen():
    levels = [made.copies(0.0, "none", arm="full", rows=rows) for rows in (256, 1024, 4096)]
    cells, records = made.made(levels, pairs=2)
    for one in cells:  # one pair learns late
        if one.seeds["pair"]:
            records[one.run_id] = record(one, [0.0, 0.1, 0.3, 0.4])
    table = made.table_of(cells, records)
    (plan,) = made.dose.plans(table, EVALUATION)
    figure = plan.draw(WIDE, {key: colours[0] for key, colours in COLOURS.items()})
    (ax,) = figure.axes
    (low, high), values = ax.get_ylim(), plan.data[["pair 1", "pair 2"]].to_numpy()
    plt.close(figure)
    assert plan.data["high"].max() > 2 and low <= values.min() and values.max() <= high
    assert high - low <= 2.1 * np.ptp(values)


@pytest.mark.parametrize(("minutes", "share"), [((0.5377, 0.538), (0, 0.01)), ((1.0, 3.0), (0.7, 0.9))])
def test_arms_that_cost_about_the_same_stand_side_by_side_and_others_apart(minutes, share):
    _, ax = plt.subplots()
    pareto._minutes_axis(ax, minutes, {"muted": "black"})
    low, high = ax.get_xlim()
    plt.close()
    assert low < min(minutes) and max(minutes) < high
    assert share[0] < (max(minutes) - min(minutes)) / (high - low) < share[1]


def test_the_quoted_figure_stands_beside_the_interval(content):
    all_of_it, _ = content
    first, second = all_of_it.claims
    quoted = dict(first["definition"], quoted=dict(first["definition"]["quoted"], effect=0.4))
    (plan,) = forest.plans(replace(all_of_it, claims=[{**first, "definition": quoted}, second]))
    assert plan.data["quoted"].dropna().tolist() == [0.4]
    assert "Diamond: the quoted figure." in plan.caption and ", quoted +0.400" in plan.alt
    figure = plan.draw(WIDE, {key: colours[0] for key, colours in COLOURS.items()})
    (drawn,) = [line for line in figure.axes[0].get_lines() if line.get_marker() == "D"]
    low, high = figure.axes[0].get_xlim()
    plt.close(figure)
    assert drawn.get_xdata()[0] == 0.4 and low < 0.4 < high
    assert all("Diamond" not in plan.caption for plan in forest.plans(all_of_it))


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_ratios_at_the_edge_have_no_tick_that_runs_off_the_figure(content, width):
    all_of_it, _ = content
    first = all_of_it.claims[0]
    for high in np.linspace(0.2, 0.3, 6):  # the axis ends now before and now after a tick
        ratio = {"scale": "log_ratio", "estimate": 0.0, "ci_low": -0.9, "ci_high": float(high), "level": 0.95}
        (plan,) = forest.plans(replace(all_of_it, claims=[first | ratio]))
        ticks = [words for words, _ in on_the_figure(plan, width) if words.startswith("×")]
        assert len(ticks) >= 2


def test_labels_that_would_be_cut_to_the_same_are_told_apart_by_their_ends():
    long = [f"duplicated duplication.rate=0 noise.rate=0 noise=near_miss rows={n}" for n in (256, 512)]
    short = labels.told_apart([*long, "full"], WIDE)
    assert short[2] == "full" and all(len(label) <= labels.LONGEST for label in short)
    assert [label.endswith(end) for label, end in zip(short, ("rows=256", "rows=512"), strict=False)] == [True, True]
    assert short[0].startswith("… ") and "noise=near_miss" in short[0]
    over = labels.titles([*long, "full"], 1.2)
    assert over[2] == "full" and len(set(over)) == 3
    assert all(title.count("\n") < labels.MOST_TITLE_LINES for title in over)
    assert labels.told_apart([f"{'x' * 60}{n}" for n in "ab"], WIDE)[1].endswith("xxb")


def test_a_title_that_is_one_long_word_is_broken_before_an_underscore():
    (title,) = labels.titles(["biased_style_length_matched"], 26 * labels.CHARACTER + 0.01)
    assert title == "biased_style_length\n_matched"
    (title,) = labels.titles(["near_miss_and_swapped answers"], 10 * labels.CHARACTER + 0.01)
    assert title == "near_miss\n_and\n_swapped …"
    (title,) = labels.titles(["x" * 12], 8 * labels.CHARACTER + 0.01)  # where else should it be broken
    assert title == "xxxxxxxx\nxxxx"
