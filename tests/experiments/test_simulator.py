"""The simulator's page and its command: what is in the page, what is inert, and what is refused in one line."""

import gzip
import html.parser
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments import UserError, report, simulator, slices, surface
from experiments import table as tables
from experiments.report import simulator as pages
from experiments.report import simulator_figures
from tests.experiments import spanning
from tests.experiments.spanning import DESIGN

pytestmark = pytest.mark.xdist_group("simulator")  # in one process, that what all share is fitted once

HOSTILE = "</script><script>alert(\"x\")</script> & 'quoted' $$\\frac{1}{2}$$ \\(y\\) <!--"
VALUES = {
    "runs": None, "out": "simulator.html", "title": None, "metric": "ood/nll", "point": "best_val", "loss": None,
    "size": "data.rows", "noise": "noise.rate", "copies": "duplication.rate", "pair": "seed_pair", "base": "seed_base",
    "slices": None,
}  # fmt: skip


@pytest.fixture
def one_form(monkeypatch):
    """The form that was planted, where nothing hangs on which one wins."""
    monkeypatch.setattr(surface, "FORMS", {"product": surface.FORMS["product"]})


class Page(html.parser.HTMLParser):
    """Tags with their attributes, the texts of scripts by type, and all other text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.text, self._inside = [], [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside is None:
            self.text += data


def data_of(page: Page) -> dict:
    (text,) = [text for text in page.scripts if text.startswith("{")]
    return json.loads(text)


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text():
    return pages.page(spanning.found(), "A title")


def test_it_is_one_small_file_that_asks_for_nothing_and_is_the_same_twice(text):
    assert len(text.encode()) < 2_000_000
    assert text == pages.page(spanning.found(), "A title")
    for tag, attrs in Page(text).tags:
        assert not {"src", "srcset"} & set(attrs), tag
        assert attrs.get("href", "data:,") == "data:,"


def test_its_numbers_are_those_of_the_surfaces(text):
    data = data_of(Page(text))
    assert data == json.loads(json.dumps(pages.payload(spanning.found())))
    for said, one in zip(data["slices"], spanning.found().slices, strict=True):
        made = one.prediction
        assert dict(zip(said["names"], said["fit"], strict=True)) == made.fit.values
        assert [len(group) for group in said["refits"]] == [len(group) for group in made.refits]
        assert said["refits"][-1][0] == list(made.refits[-1][0].values.values())
        assert (said["cell"], said["t"], said["fresh"]) == (made.cell, made.t_cell, made.fresh)
        assert np.array(said["cells"])[:, 3] == pytest.approx(one.values.mean(0))
        scaled = (np.array([np.log(1000), 0.3, 0.0]) - said["hull"]["origin"]) / said["hull"]["scale"]
        rooms = np.array(said["hull"]["offsets"]) + data["edge"] - np.array(said["hull"]["normals"]) @ scaled
        assert (rooms >= 0).all() == one.inside(1000, 0.3, 0.0)
        assert one.inside(*np.array(said["start"]))
    assert [said["choice"] for said in data["slices"]] == [[0, 0], [0, 1], [1, 0]]


def test_it_says_which_form_won_against_which(text):
    found, words = spanning.found(), Page(text).text
    for form, error in found.slices[0].left_out.items():
        assert f"{error:.3g}" in words and form in words
    assert "product (used here)" in words
    assert "surface of the first combination with another kappa" in " ".join(words.split())


def test_every_control_has_a_label_and_every_figure_words(text):
    tags = Page(text).tags
    labelled = {attrs["for"] for tag, attrs in tags if tag == "label"}
    controls = {attrs["id"] for tag, attrs in tags if tag in ("input", "select")}
    assert controls == labelled and len(controls) == 5
    figures = [attrs for tag, attrs in tags if tag == "figure"]
    assert len(figures) == 4 and all(attrs["role"] == "img" and attrs["aria-label"] for attrs in figures)


def test_without_copies_there_is_no_slider_of_them():
    found = spanning.found()
    bare = pages.section(replace(found, axes=slices.Axes(copies=None)))
    assert 'id="simulator-copies"' not in bare.html and 'id="simulator-plot-copies"' not in bare.html


def test_names_are_no_markup_and_no_script():
    found = spanning.found()
    nasty = [replace(one, choice=one.choice | {"noise": one.choice["noise"] + HOSTILE}) for one in found.slices]
    axes = slices.Axes(HOSTILE, HOSTILE, HOSTILE)
    text = pages.page(replace(found, slices=tuple(nasty), metric=HOSTILE, axes=axes), HOSTILE)
    plain = pages.page(found, "A title")
    assert [tag for tag, _ in Page(text).tags if tag == "script"] == [
        tag for tag, _ in Page(plain).tags if tag == "script"
    ]
    assert HOSTILE in Page(text).text
    assert data_of(Page(text))["metric"] == HOSTILE
    assert "$$" not in simulator_figures.untyped(HOSTILE) and "\\(" not in simulator_figures.untyped(HOSTILE)


@pytest.mark.parametrize(("low", "high"), [(0.2, 3.0), (0.9, 1.1), (0.0004, 120.0), (2.1, 2.9), (1.0, 1.2)])
def test_ticks_are_round_and_few(low, high):
    ticks = simulator_figures.nice_ticks(low, high)
    assert 3 <= len(ticks) <= 8
    assert all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(ticks)


def test_the_report_of_runs_that_span_the_axes_has_it(tmp_path, one_form):
    out = tmp_path / "simulator.html"
    design = [at for at in DESIGN if at["noise"] == "near_miss" and at["data.rows"] in (256, 1024, 4096)]
    (section,) = report._simulator(spanning.table(design=design), "T", out)
    assert section.title == "Simulator" and 'id="simulator-data"' in section.html
    assert out.stat().st_size < 2_000_000
    assert ("a", {"href": "index.html"}) in Page(out.read_text()).tags
    few = spanning.table(design=[at for at in DESIGN if at["duplication.rate"] == 0])
    assert report._simulator(few, "T", out) == []
    assert not out.exists()  # of an earlier report


# --- the command ------------------------------------------------------------------------------------------------------


def rows(**columns):
    """A table with a row for each run of the design without slices."""
    near = [at for at in DESIGN if (at["noise"], at["duplication"]) == ("near_miss", "random")]
    made = pd.DataFrame([
        {"n": at["data.rows"], "bad": at["noise.rate"], "again": at["duplication.rate"], "seed": seed,
         "loss": spanning.loss(at) * (1 + 0.01 * ((7 * i + 5 * seed) % 11 - 5) / 5)}
        for i, at in enumerate(near) for seed in (1, 2)
    ])  # fmt: skip
    return made.assign(**columns)


MINE = {"loss": "loss", "size": "n", "noise": "bad", "copies": "again", "pair": "seed", "base": None}


def made(tmp_path, frame, **changes):
    """What the command says of a table, and its page."""
    path = tmp_path / "mine.csv"
    frame.to_csv(path, index=False)
    out = tmp_path / "new" / "page.html"
    said = simulator.make(VALUES | {"runs": str(path), "out": str(out)} | changes)
    return said, Page(out.read_text())


def test_a_table_with_a_row_a_run_is_fitted(tmp_path, one_form):
    said, page = made(tmp_path, rows(), **MINE, title="Mine")
    assert "1 surface; log error at cells left out: product 0.0" in said
    data = data_of(page)
    (one,) = data["slices"]
    values = dict(zip(one["names"], one["fit"], strict=True))
    assert values["delta"] == pytest.approx(spanning.DELTA, abs=0.05)
    assert (one["pairs"], one["bases"], data["metric"]) == (2, 1, "loss")
    assert "Mine" in page.text


def test_runs_of_a_cell_are_numbered_where_no_column_says_their_pair(tmp_path, one_form):
    _, page = made(tmp_path, rows().drop(columns="seed"), **MINE | {"pair": None})
    assert data_of(page)["slices"][0]["pairs"] == 2


def test_columns_tell_surfaces_apart(tmp_path, one_form):
    both = pd.concat([rows(model="small"), rows(model="large")])
    both.loc[both["model"] == "large", "loss"] *= 0.8
    said, page = made(tmp_path, both, **MINE, slices=["model"])
    assert "2 surfaces" in said
    assert [one["choice"] for one in data_of(page)["slices"]] == [[0], [1]]


def test_runs_csv_is_fitted_packed_and_cut_down_to_what_is_needed(tmp_path, one_form):
    table = spanning.table(design=[at for at in DESIGN if at["duplication.rate"] == 0])
    path = tmp_path / "runs.csv.gz"
    path.write_bytes(gzip.compress(table[table["metric"].isin(["done", "nll"])].to_csv(index=False).encode()))
    out = tmp_path / "page.html"
    assert "2 surfaces" in simulator.make(VALUES | {"runs": str(path), "out": str(out)})
    whole = data_of(Page(out.read_text()))
    cut = tables.measured(table, "ood/nll", "best_val").drop(columns=["n", "tokens", "seed_select"])
    cut.to_parquet(tmp_path / "cut.parquet")
    simulator.make(VALUES | {"runs": str(tmp_path / "cut.parquet"), "out": str(out)})
    again = data_of(Page(out.read_text()))
    assert [one["choice"] for one in again["slices"]] == [one["choice"] for one in whole["slices"]]
    assert again["slices"][0]["fit"] == pytest.approx(whole["slices"][0]["fit"], rel=1e-3)


@pytest.mark.parametrize(("change", "words"), [
    ({"loss": "nothing"}, "loss=nothing: no such column in the table (there are: n, bad, again, seed, loss)"),
    ({"size": "rows"}, "size=rows: no such column"),
    ({"copies": "duplication.rate"}, "copies=null if nothing was duplicated"),
    ({"slices": ["model"]}, "slices=model: no such column"),
    ({"pair": "twin"}, "pair=twin: no such column"),
    ({"base": "stem"}, "base=stem: no such column"),
    ({"loss": None}, "no column point, suite, metric, value, so it is no runs.csv"),
    ({"metric": "nll"}, "metric=nll"),
    ({"out": ""}, "out="),
    ({"slices": "model"}, "slices=model"),
])  # fmt: skip
def test_mistakes_in_keys_are_one_line(tmp_path, change, words):
    with pytest.raises(UserError) as error:
        made(tmp_path, rows(), **MINE | change)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("frame", "words"), [
    (rows()[lambda t: t["n"] < 600], "sizes that every pair has: 2,"),
    (rows()[lambda t: t["bad"] == 0.4], "rates of noise that every pair has: 1,"),
    (rows(loss=1.5), "the same loss"),
    (rows(loss=-1.0), "not above 0"),
    (rows(loss="?"), "loss holds no number"),
    (rows(bad=lambda t: 100 * t["bad"]), "shares from 0 to 1"),
    (rows()[:0], "there is no row"),
])  # fmt: skip
def test_tables_that_bear_no_surface_say_why_in_one_line(tmp_path, frame, words):
    with pytest.raises(UserError) as error:
        made(tmp_path, frame, **MINE)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_what_is_not_in_runs_csv_is_named(tmp_path):
    table = spanning.table()
    with pytest.raises(UserError, match=r"metric=ood/perplexity: not in the table \(there are: .*composition/em"):
        made(tmp_path, table, metric="ood/perplexity")
    with pytest.raises(UserError, match=r"point=start: not in the table \(there are: best_val, end, step:0"):
        made(tmp_path, table, point="start")


def test_files_that_are_no_table_are_one_line(tmp_path):
    for name, data in (
        ("a.csv", b""),
        ("b.csv", b"\xff\xfe\x00"),
        ("c.csv.gz", b"\x1f\x8bbroken"),
        ("c.csv.xz", b"broken"),
        ("d.parquet", b"x"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match="not a table"):
            simulator.make(VALUES | {"runs": str(tmp_path / name)})
    with pytest.raises(UserError, match="no such file"):
        simulator.make(VALUES | {"runs": str(tmp_path / "none.csv")})
    with pytest.raises(UserError, match="runs=null: name a table"):
        simulator.make(VALUES)


def test_the_command_line_says_a_mistake_and_leaves_with_2(monkeypatch, capsys):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as main does, here for this test only
    monkeypatch.setattr("sys.argv", ["simulator", "runs=none.csv"])
    with pytest.raises(SystemExit) as left:
        simulator.main()
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: runs=none.csv: no such file\n"
