"""Two reports side by side, and what a report gives to a paper."""

import json

import pytest

from experiments import UserError, report
from experiments.claim_files import load
from experiments.report import comparison, paper
from tests.experiments.synthetic import quickstart
from tests.experiments.test_claims import QUICKSTART
from tests.experiments.test_report import COMMAND, EVALUATION, Page

pytestmark = [pytest.mark.xdist_group("report"), pytest.mark.usefixtures("few_drawings")]


def build(root, name, pairs, **options):
    cells, records = quickstart(pairs=pairs, seed=pairs)
    out = root / "reports" / name
    options = {"evaluation": EVALUATION} | options
    judged = report.build(name, "A title", cells, records, load(QUICKSTART[:3]), out, COMMAND, "x: 1", **options)
    return out, judged


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A store with two reports, without their figures."""
    monkeypatch.setattr(report, "draw_all", lambda *_: [])
    build(tmp_path, "six", 6)
    build(tmp_path, "two", 2)
    return tmp_path


def test_arms_and_claims_of_two_reports_stand_in_one_row(root):
    one, other = (comparison.read(root, name) for name in ("six", "two"))
    columns, rows = comparison.arm_rows(one, other)
    filtered = dict(zip(columns, next(row for row in rows if row[0] == "filtered"), strict=True))
    assert filtered["six: ood/em"].startswith("0.8") and filtered["two: ood/em"].startswith("0.")
    assert filtered["six: minus full"] != filtered["two: minus full"] != "–"
    columns, rows = comparison.claim_rows(one, other)
    assert [row[3] for row in rows] == ["6"] * 3 and [row[6] for row in rows] == ["2"] * 3
    assert "3 claims are judged in both" in comparison.agreement(one, other)


def test_what_is_in_one_alone_stands_beside_a_dash():
    pairs = comparison.aligned(["a", "b1", "c"], ["b2", "a", "d"], lambda s: s, lambda s: s[0])
    assert pairs == [("a", "a"), ("b1", "b2"), ("c", None), (None, "d")]
    assert comparison.aligned([], [], lambda s: s) == []


def test_the_page_of_two_asks_for_nothing_and_a_folder_will_do(root):
    path = comparison.build(root, ["six", str(root / "reports" / "two")])
    assert path == root / "reports" / "six_and_two" / "index.html"
    page = Page(path.read_text())
    assert "six: verdict" in page.text and [tag for tag, _ in page.tags].count("table") == 2


def test_a_report_from_before_manifests_said_what_leads_is_read_by_its_claims(root):
    manifest = root / "reports" / "two" / "manifest.json"
    found = json.loads(manifest.read_text())
    assert found.pop("evaluation")["primary"] == "ood/em"
    manifest.write_text(json.dumps(found))
    assert comparison.read(root, "two").lead == comparison.read(root, "six").lead


@pytest.mark.parametrize(
    ("names", "said"),
    [(["six"], "give two"), (["six", "none"], "no such report .*there are: six, two"), (["six", "two"], "no whole")],
)
def test_mistakes_are_one_line(root, names, said):
    if said == "no whole":
        (root / "reports" / "two" / "runs.csv").unlink()
    with pytest.raises(UserError, match=said):
        comparison.build(root, names)


# --- papers ---------------------------------------------------------------------------------------------------------


def test_a_paper_gets_figures_as_pdf_and_claims_as_tables(tmp_path):
    out, judged = build(tmp_path, "six", 6, paper=True)
    assert {path.stem for path in (out / "paper").glob("*.pdf")} == {p.stem for p in (out / "figures").glob("*.svg")}
    text = (out / "paper" / "claims.tex").read_text()
    assert text.count(r"\\") == len(judged) + 1 and "reproduced" in text and r"random\_length\_matched" not in text
    lines = (out / "paper" / "claims.md").read_text().splitlines()
    assert len(lines) == 2 + len(judged) and judged[0]["title"] in "".join(lines)


def test_latex_means_only_what_the_text_says():
    assert paper.tex("50 % of_it & {x} $5 #1 ~^\\") == (
        r"50 \% of\_it \& \{x\} \$5 \#1 \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert paper.tex("×0.25\n−1 – 2") == r"\(\times\)0.25 \(-\)1 -- 2"
