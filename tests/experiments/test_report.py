import html
import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from experiments import claims as judging
from experiments import report, store
from experiments import table as tables
from experiments.claim_files import load
from experiments.report import content as contents
from experiments.report.content import arms, contrast_of, effect, evidence, headline_first, interval_of, labels_of
from experiments.report.figures import COLOURS, _inline
from experiments.report.labels import spread
from experiments.report.texts import scorers_note, tables_of
from tests.experiments.synthetic import BEST, cell, quickstart, record
from tests.experiments.test_claims import QUICKSTART, claim

# in one process, that what all share is built once, with all its drawings
pytestmark = [pytest.mark.xdist_group("report"), pytest.mark.usefixtures("few_drawings")]

EVALUATION = SimpleNamespace(best=BEST, primary="ood/em", mode="max")
FIGURES = ("curves", "cost", "arms", "suites", "claims")
COMMAND = "python -m experiments.run experiment=quickstart"


def build(out, cells, records, claims=(), title="A title", config="experiment: {name: quickstart}", **options):
    options = {"evaluation": EVALUATION, "ood": ("entity", "wording", "composition")} | options
    return report.build("quickstart", title, cells, records, claims, out, COMMAND, config, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report with one run missing, built twice."""
    first, second = tmp_path_factory.mktemp("a") / "r", tmp_path_factory.mktemp("b") / "r"
    cells, records = quickstart(missing=lambda c: c.arm == "longest" and c.seeds["pair"] == 4)
    lost = next(c.run_id for c in cells if c.run_id not in records)
    for out in (first, second):
        judged = build(out, cells, records, load(QUICKSTART), failures={lost: "OutOfMemory: <no> memory"})
    return SimpleNamespace(out=first, again=second, cells=cells, records=records, claims=judged, lost=lost)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text outside of styles and scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._style = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._style = tag in ("style", "script")

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        self.text += "" if self._style else data


# --- files ----------------------------------------------------------------------------------------------------------


def test_all_files_are_there_and_two_builds_are_equal(made):
    assert set(files(made.out)) == {
        "index.html", "REPORT.md", "claims.json", "runs.csv", "manifest.json",
        *(f"figures/{n}.{kind}" for n in FIGURES for kind in ("svg", "png", "csv")),
    }  # fmt: skip
    assert files(made.out) == files(made.again)


def test_verdicts_follow_from_the_files(made):
    assert judging.recompute(made.out)
    assert json.loads((made.out / "claims.json").read_text()) == json.loads(store.canonical(made.claims))


def test_the_manifest_lists_runs_done_and_missing(made):
    manifest = json.loads((made.out / "manifest.json").read_text())
    assert set(manifest["runs"]) == set(made.records)
    assert manifest["missing"] == [made.lost]


def test_the_page_asks_for_nothing(made):
    text = (made.out / "index.html").read_text()
    page = Page(text)
    assert not {"img", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{}]  # its own, inline
    for tag, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            assert (attrs.get(name) or "#")[:1] == "#" or attrs[name].startswith("data:"), (tag, attrs)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text
    drawn = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert drawn and not any(light in svg for light, _ in COLOURS.values() for svg in drawn)  # each scheme has its own


def test_every_figure_is_described(made):
    figures = [attrs for tag, attrs in Page((made.out / "index.html").read_text()).tags if tag == "svg"]
    assert len(figures) == 2 * len(FIGURES)
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 40 for attrs in figures)


def test_page_and_markdown_say_the_same(made):
    page = Page((made.out / "index.html").read_text()).text
    text = (made.out / "REPORT.md").read_text().replace("\\", "")
    for entry in made.claims:
        for words in (entry["title"], evidence(entry), entry["reading"], entry["source"], interval_of(entry)):
            assert words in page
            assert " ".join(words.split()) in text
    for words in ("OutOfMemory: <no> memory", made.lost, COMMAND, "seeds", "0 to 5", "duplicated rate=0.25"):
        assert words in page
        assert words in text
    for name in re.findall(r"\]\((figures/[^)]*)\)", text):
        assert (made.out / name).exists()


def test_the_headline_against_the_best_control_comes_first(made):
    assert headline_first(made.claims)[0]["id"] == "alpagasus_best_control"
    page = (made.out / "index.html").read_text()
    first = re.search(r'<p class="said">(.*?)</p>', page).group(1)
    said = "these 3 base models: what a reward model keeps beats the best control of the same size."
    assert first == f'<span class="reproduced">Reproduced</span>, {said}'
    shuffled = headline_first(made.claims[::-1])
    assert "best_of" in shuffled[0]["definition"]["control"]


def test_what_is_said_agrees_with_the_verdict(made):
    page = html.unescape((made.out / "index.html").read_text())
    for entry in made.claims:
        word = contents.VERDICTS[entry["verdict"]].capitalize()
        assert f'<span class="{entry["verdict"]}">{word}</span>, {entry["scope"]}: {entry["title"]}' in page


def test_minutes_of_several_devices_are_not_weighed(tmp_path):
    cells, records = quickstart(pairs=2)
    for c in cells[::3]:
        records[c.run_id]["environment"] = {"device": "NVIDIA H100"}
    build(tmp_path, cells, records)
    assert not (tmp_path / "figures" / "cost.svg").exists() and (tmp_path / "figures" / "arms.svg").exists()
    there = len(cells[::3])
    for name in ("index.html", "REPORT.md"):
        words = f"made on several devices (NVIDIA H100: {there} runs, cpu: {len(cells) - there} runs)"
        assert words in html.unescape((tmp_path / name).read_text()), name


# --- hostile, missing and odd input ---------------------------------------------------------------------------------


def test_nothing_of_data_or_config_becomes_markup(tmp_path):
    nasty = '</pre><script>alert("x")</script> $x^2$ | `[a](b)` <b>'
    cells, records = [], {}
    for pair in range(2):
        for arm in ("full", nasty):
            c = cell(arm, pair, {"noise.kind": nasty if arm == nasty else "none"})
            cells.append(c)
            records[c.run_id] = record(c, [0.1, 0.2, 0.3, 0.4 + 0.01 * pair + 0.1 * (arm == nasty) * (1 + pair)])
    records[cells[0].run_id]["environment"] = {"device": nasty}
    one = claim(title=nasty, source=nasty, reading=nasty, treatment={"arm": nasty}, control={"arm": "full"})
    build(tmp_path, cells, records, [one], title=nasty, config=nasty)
    text = (tmp_path / "index.html").read_text()
    page = Page(text)
    assert [tag for tag, _ in page.tags if tag in ("script", "b")] == ["script"]  # the page's own
    assert page.text.count('<script>alert("x")</script>') >= 5
    markdown = (tmp_path / "REPORT.md").read_text()
    outside = re.sub(r"^(```+)\n.*?\n\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<script", outside)
    for folder in ("curves", "arms", "claims"):
        assert "<script" not in (tmp_path / "figures" / f"{folder}.svg").read_text()


@pytest.mark.parametrize("char", ["\u202e", "\x00", "\x1b"])
def test_what_reorders_text_or_is_no_text_is_shown_by_its_code(tmp_path, char):
    cells = [cell(f"a{char}b", pair) for pair in range(2)]
    records = {c.run_id: record(c, [0.1, 0.2, 0.3, 0.4 + 0.1 * c.seeds["pair"]]) for c in cells}
    build(tmp_path, cells, records, title=f"t{char}t", failures={})
    for path in (tmp_path / "index.html", tmp_path / "REPORT.md", *(tmp_path / "figures").glob("*.svg")):
        assert char not in path.read_text(), path
    assert f"[U+{ord(char):04X}]" in (tmp_path / "index.html").read_text()
    ElementTree.parse(tmp_path / "figures" / "curves.svg")


def test_a_megabyte_of_text_is_cut_and_says_so(tmp_path):
    huge = "long <b> " * 120_000
    name = huge[:20_000]  # runs.csv has it in every line
    cells = [cell(arm, pair) for arm in ("full", name, name + "2") for pair in range(2)]
    records = {c.run_id: record(c, [0.1, 0.2, 0.3, 0.4 + 0.1 * c.seeds["pair"]]) for c in cells}
    lost = cell("full", 7)
    one = claim(title=huge, source=huge, reading=huge, treatment={"arm": name}, control={"arm": "full"})
    build(tmp_path, [*cells, lost], records, [one], title=huge, config=huge, failures={lost.run_id: huge})
    sizes = {path.name: path.stat().st_size for path in tmp_path.rglob("*") if path.suffix in (".html", ".md", ".svg")}
    assert max(sizes.values()) < 500_000, sizes
    text = (tmp_path / "index.html").read_text()
    assert f"(cut: {len(huge):,} characters)" in text
    labels = {arm.label for arm in arms(tables.read(tmp_path / "runs.csv"), EVALUATION)}
    assert len(labels) == 3 and max(map(len, labels)) < 125


@pytest.mark.parametrize("pairs", [0, 1])
def test_with_next_to_nothing_there_is_still_a_report(tmp_path, pairs):
    cells, records = quickstart(pairs=1)
    judged = build(tmp_path, cells, records if pairs else {}, load(QUICKSTART))
    assert {entry["verdict"] for entry in judged} == {"inconclusive"}
    assert "undecided" in (tmp_path / "REPORT.md").read_text()
    assert judging.recompute(tmp_path)
    if not pairs:
        assert "was not run" in (tmp_path / "index.html").read_text()
        assert "curves" not in (tmp_path / "index.html").read_text().split("<main")[1].split("<pre>")[0]


def test_without_claims_there_are_still_curves(tmp_path):
    cells, records = quickstart(pairs=2)
    assert build(tmp_path, cells, records) == []
    text = (tmp_path / "index.html").read_text()
    assert "Over training" in text
    assert "claims in full" not in text
    assert judging.recompute(tmp_path)


def test_a_metric_that_some_runs_lack_and_less_being_better(tmp_path):
    cells, records = quickstart(pairs=2)
    for c in cells:
        if c.arm == "oracle":
            for point in records[c.run_id]["metrics"].values():
                point["ood"].pop("nll", None)
    evaluation = SimpleNamespace(best=tables.Best("validation", "nll", "min"), primary="ood/nll", mode="min")
    build(tmp_path, cells, records, evaluation=evaluation)
    text = (tmp_path / "REPORT.md").read_text()
    assert "less is better" in (tmp_path / "figures" / "curves.svg").read_text()
    assert re.search(r"\| oracle \|.*–", text)


def test_nothing_is_left_of_an_earlier_report(tmp_path):
    cells = [cell(arm, pair) for arm in ("full", "filtered") for pair in range(2)]
    records = {c.run_id: record(c, [0.1, 0.2, 0.3, 0.4 + 0.1 * c.seeds["pair"]]) for c in cells}
    build(tmp_path, cells, records, load(["alpagasus_full"]))
    assert "figures/claims.svg" in files(tmp_path)
    build(tmp_path, cells, records)
    assert "figures/claims.svg" not in files(tmp_path)
    assert "alpagasus_full" not in (tmp_path / "claims.json").read_text()


# --- content --------------------------------------------------------------------------------------------------------


def test_arms_are_averaged_over_their_pairs(made):
    found = {arm.label: arm for arm in arms(tables.read(made.out / "runs.csv"), EVALUATION)}
    assert list(found)[:2] == ["full", "filtered"]
    assert {"duplicated rate=0.25", "duplicated rate=1"} <= set(found)
    scores = [
        made.records[c.run_id]["metrics"]["best_val"]["ood"]["em"]["value"] for c in made.cells if c.arm == "filtered"
    ]
    filtered = found["filtered"]
    assert filtered.score == pytest.approx(np.mean(scores))
    assert filtered.low < filtered.score < filtered.high
    assert filtered.means["data/rows"] == 725
    assert filtered.scorer["auroc:near_miss"] == pytest.approx(0.95)
    assert (found["longest"].done, found["longest"].planned) == (5, 6)
    assert list(filtered.curve.steps) == [0, 48, 96, 192, 384]
    assert filtered.curve.pairs.shape == (6, 5)
    assert filtered.curve.mean == pytest.approx(filtered.curve.pairs.mean(0))
    assert (filtered.curve.low[1:] < filtered.curve.mean[1:]).all()


def test_the_band_of_an_arm_takes_base_models_as_blocks():
    """Differences between bases are no noise: they must not widen the band."""
    cells, records = [], {}
    for pair in range(6):
        c = cell("full", pair)
        cells.append(c)
        top = 0.2 + 0.3 * (pair % 3) + 0.001 * (pair // 3)
        records[c.run_id] = record(c, [0, 0, 0, top])
    (arm,) = arms(tables.runs_table(cells, records, BEST), EVALUATION)
    assert arm.high - arm.low < 0.01


def test_the_tables_hold_what_is_known(made):
    content = replace(
        contents.Content("n", "t", "ood/em", "max", "validation/em", [], [], {}, [], [], "c", "y"),
        arms=arms(tables.read(made.out / "runs.csv"), EVALUATION),
        scorers={
            "filtered": {"auroc:near_miss": 0.95, "auroc:all": 0.98, "pairs:joint": 0.97},
            "filtered_bt": {"auroc:truncated": 1.0, "auroc:all": 0.78},
        },
    )
    found = tables_of(content)
    assert found["scorers"] == (
        ["scorer of", "near_miss", "truncated", "all", "pairs:joint"],
        [["filtered", "0.95", "–", "0.98", "0.97"], ["filtered_bt", "–", "1.00", "0.78", "–"]],
    )
    assert "No better than" not in scorers_note(content)
    ruler = {"pairs:joint": 0.8, "pairs:longer_wins": 0.7, "pairs:more_words_win": 0.8}
    told = scorers_note(replace(content, scorers={"plain": ruler, "fine": {**ruler, "pairs:joint": 0.81}}))
    assert told.endswith(" No better than preferring the longer response: plain.")
    columns, rows = found["arms"]
    assert columns[5] == "ood/em"
    assert rows[6][:3] == ["longest", "5 of 6", "725"]


def test_ratios_and_differences_are_told_apart():
    assert effect({"scale": "log_ratio"}, np.log(0.5)) == "×0.500"
    assert effect({"scale": "difference"}, -0.1234) == "−0.123"
    assert effect({"scale": "difference"}, None) == "open"
    assert interval_of({"scale": "log_ratio", "ci_low": 0.0, "ci_high": None}) == "×1.000 to open"


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [0.5, 0.51, 0.1, 0.9], [1.0], [], [0.3, 0.2, 0.1]])
def test_labels_are_spread_in_order(values):
    placed = spread(values, 0.1)
    order = np.argsort(values, kind="stable")
    gaps = np.diff([placed[i] for i in order])
    assert (gaps >= 0.1 - 1e-9).all()
    assert np.mean(placed) == pytest.approx(np.mean(values)) if values else placed == []
    assert spread([0.1, 0.5], 0.1) == [0.1, 0.5]


def test_inline_figures_follow_the_page():
    svg = '<?xml version="1.0"?><svg height="5" viewBox="0 0 9 5" width="9"><g id="figure_1">'
    svg += '<path id="m1" style="fill: #1d2126"/><use xlink:href="#m1"/></g></svg>'
    found = _inline(svg, 'a "b" <c>')
    assert found.startswith('<svg viewBox="0 0 9 5" role="img" aria-label="a &quot;b&quot; &lt;c&gt;"')
    assert "var(--ink)" in found
    assert 'id="m1"' in found
    assert "figure_1" not in found


# --- the terminal ---------------------------------------------------------------------------------------------------


def printed(table) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_terminal_tables_say_what_was_found(made):
    text = printed(report.claim_table(made.claims))
    for entry in made.claims:
        assert contents.VERDICTS[entry["verdict"]] in text
        assert interval_of(entry) in text
    text = printed(report.arm_table(made.cells, made.records, EVALUATION))
    assert "duplicated rate=0.25" in text
    assert "5 of 6" in text


def test_terminal_tables_take_a_first_pair_and_odd_names():
    cells, records = quickstart(pairs=1)
    assert "filtered_bt" in printed(report.arm_table(cells, records, EVALUATION))
    odd = cell("[red]x", 0)
    assert "[red]x" in printed(report.arm_table([odd], {odd.run_id: record(odd, [0.1] * 4)}, EVALUATION))
    assert printed(report.arm_table([odd], {}, EVALUATION))


# --- claims that are more than a contrast ---------------------------------------------------------------------------


def test_statistics_and_references_are_said_in_words_and_drawn(tmp_path):
    from tests.experiments.test_claims import definition
    from tests.experiments.test_shapes import PARAMETER, RATE, RATES, SIZE, SLOPE, along, falling, runs
    from tests.experiments.test_shapes import claim as shape_claim

    cells, records = runs(falling, along(RATE, RATES))
    own = {"arm": "a", RATE: 0.2}
    some = [
        shape_claim(SLOPE, id="slope", kind="less"),
        shape_claim({"name": "optimum", "along": RATE}, id="place", kind="less", reference=0.25, margin=0.1),
        type(shape_claim(SLOPE))(**definition(id="itself", point="end", treatment=own, control=own,
                                              control_point="step:48")),
    ]  # fmt: skip
    judged = {entry["id"]: entry for entry in build(tmp_path, cells, records, some)}
    page, text = (tmp_path / "index.html").read_text(), (tmp_path / "REPORT.md").read_text()
    assert f"slope along {RATE}, a: −0.5" in evidence(judged["slope"])
    assert "optimum along noise.rate, a: 0 in ood/em, " in evidence(judged["place"])
    assert "a rate=0.2 minus itself (step:48)" in evidence(judged["itself"])
    assert judged["slope"]["control"] == {}
    for said in ("slope along noise.rate", "0.1 about 0.25", "name optimum"):
        assert said in page and said in text
    assert "ood/em, slope" in (tmp_path / "figures" / "claims.svg").read_text()
    form = {"statistic": PARAMETER, "treatment": {"arm": "a"}, "control": {}, "scale": "difference"}
    assert contrast_of(form) == f"alpha of the additive form along {SIZE} and {RATE}, a"
    share = {"treatment": {"arm": "a"}, "control": {"arm": "b"}, "scale": "gain_share"}
    assert contrast_of(share) == "gain of a as a share of gain of b"
    assert effect(share, 0.9) == "0.9"


@pytest.mark.parametrize(
    ("treatment", "control", "words"),
    [
        ({"arm": "filtered"}, {"arm": "full"}, "filtered minus full"),
        ({"arm": "full", "data.rows": 4096, "noise.rate": 0}, {"arm": "full", "data.rows": 256, "noise.rate": 0},
         "rows=4096 minus rows=256, full rate=0"),
        ({"arm": "filtered", "noise.rate": 0.4}, {"arm": "full", "noise.rate": 0.4}, "filtered minus full, rate=0.4"),
        ({"arm": "full", "noise.rate": 0.4}, {"arm": "full"}, "full rate=0.4 minus full"),
        ({"arm": "a", "noise.rate": 0}, {"best_of": [{"arm": "b"}, {"arm": "c"}]}, "a rate=0 minus the best of b, c"),
    ],
)  # fmt: skip
def test_what_two_arms_share_is_said_once(treatment, control, words):
    assert contrast_of({"treatment": treatment, "control": control, "scale": "difference"}) == words


def test_an_arm_is_named_by_as_few_levels_as_tell_it_from_others():
    def labels(*levels):
        return labels_of([{"arm": "full", **one} for one in levels])

    sizes = [{"rows": rows, "noise": "none", "rate": 0.0} for rows in (16, 256, 4096)]
    assert labels(*sizes) == ["full rows=16", "full rows=256", "full rows=4096"]
    noisy = {"rows": 256, "noise": "mixture", "rate": 0.5}
    assert labels(*sizes, noisy)[:2] == ["full rows=16", "full rows=256 rate=0"]
    assert labels(*sizes, noisy)[-1] == "full rate=0.5"
    assert labels(sizes[0], sizes[0]) == ["full", "full (2)"]
    rated = [{"training.lr": 1 / width, "model.scratch.hidden": width} for width in np.array([32, 64])]
    assert labels(*rated) == ["full hidden=32", "full hidden=64"]
