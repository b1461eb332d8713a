"""The report in a real browser: nothing is asked for, tables sort, hostile text stays text, all widths and schemes."""

import html
import os
from pathlib import Path

import pytest

from experiments import report
from experiments.claim_files import load
from tests.experiments.synthetic import cell, quickstart, record
from tests.experiments.test_claims import QUICKSTART, claim
from tests.experiments.test_folders import NASTY, OOD, fill
from tests.experiments.test_report import COMMAND, EVALUATION

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

WIDTHS, SCHEMES = (360, 900, 1600), ("light", "dark")
SUITES = ("entity", "wording", "composition")
ARMS = "table[data-sortable]"
ROWS = f"[...document.querySelector('{ARMS}').tBodies[0].rows]"


def build(out: Path, cells, records, claims=(), title="A title", **options) -> Path:
    options = {"evaluation": EVALUATION, "ood": SUITES} | options
    report.build("quick", title, cells, records, claims, out, COMMAND, "x: 1", **options)
    return out / "index.html"


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    """A report with claims, one run missing."""
    cells, records = quickstart(missing=lambda c: c.arm == "longest" and c.seeds["pair"] == 4)
    return build(tmp_path_factory.mktemp("page"), cells, records, load(QUICKSTART))


@pytest.fixture(scope="module")
def hostile_path(tmp_path_factory):
    """A report in which every text that comes from elsewhere is hostile."""
    root = tmp_path_factory.mktemp("hostile") / "runs"
    cells, records = fill(root, "microworld", note=NASTY)
    more = [cell(NASTY, pair, {"noise.kind": NASTY}) for pair in range(2)]
    records |= {c.run_id: record(c, [0.1, 0.2, 0.3, 0.4 + 0.1 * c.seeds["pair"]]) for c in more}
    for made in records.values():
        made["environment"] = {"device": NASTY}
    lost = cell(NASTY, 3)
    one = claim(title=NASTY, source=NASTY, reading=NASTY, treatment={"arm": NASTY}, control={"arm": "full"})
    options = {"ood": OOD, "root": root, "failures": {lost.run_id: "long " * 200_000 + NASTY}}
    return build(root / "reports" / "quick", [*cells, *more, lost], records, [one], NASTY, **options)


def column(page, n):
    return page.evaluate(
        f"(n) => [...document.querySelector('{ARMS}').tBodies[0].rows].map(r => r.cells[n].innerText)", n
    )


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens_from_disk_at_every_width(opened, page_path, tmp_path, width, scheme):
    found = opened(page_path, width, scheme)
    assert (found.requests, found.complaints) == ([], [])
    wide, high = found.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert wide <= width and high > 2000
    ground = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = found.page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert (brightness(ground) > 200) is (scheme == "light") and abs(brightness(ground) - brightness(ink)) > 60
    shown = found.page.evaluate("[...document.querySelectorAll('figure svg')].filter(s => s.clientWidth > 0).length")
    assert shown == found.page.locator("figure").count() > 3
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    found.page.screenshot(path=folder / f"report_{width}_{scheme}.png", full_page=True)
    assert (folder / f"report_{width}_{scheme}.png").stat().st_size > 50_000


def brightness(colour: str) -> float:
    return sum(float(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")[:3]) / 3


@pytest.mark.parametrize("sandbox", ["allow-scripts", ""])
def test_it_works_inside_an_iframe(opened, page_path, tmp_path, sandbox):
    outer = tmp_path / "outer.html"
    text = html.escape(page_path.read_text(), quote=True)
    outer.write_text(f'<!doctype html><link rel="icon" href="data:,"><iframe sandbox="{sandbox}" width=800 height=600'
                     f' srcdoc="{text}"></iframe>')  # fmt: skip
    found = opened(outer)
    frame = found.page.frames[1]
    assert frame.locator("ol.claims li").count() == len(QUICKSTART)
    assert frame.locator("th button").count() > 10 if sandbox else frame.locator("table").count() > 2
    assert [url for url in found.requests if not url.startswith("about:")] == []
    assert found.complaints == [] or not sandbox  # without scripts Chromium says that it blocked them


def test_tables_sort_by_click_and_by_keyboard(opened, page_path):
    page = opened(page_path).page
    heads = page.locator(f"{ARMS} >> nth=0").locator("thead th")
    names = [name.strip("↕↑↓ \n") for name in heads.all_inner_texts()]
    score, difference = names.index("ood/em"), names.index("minus best control")
    before = column(page, score)
    heads.nth(score).locator("button").click()
    assert heads.nth(score).get_attribute("aria-sort") == "ascending"
    assert column(page, score) == sorted(before, key=float) != before
    heads.nth(score).locator("button").focus()
    page.keyboard.press("Enter")
    assert heads.nth(score).get_attribute("aria-sort") == "descending"
    assert column(page, score) == sorted(before, key=float, reverse=True)
    heads.nth(difference).locator("button").focus()
    page.keyboard.press("Space")
    values = column(page, difference)
    known = [float(v.split(" ")[0].replace("−", "-")) for v in values if v != "–"]
    assert known == sorted(known) and values[len(known) :] == ["–"] * (len(values) - len(known))
    assert heads.nth(score).get_attribute("aria-sort") is None
    heads.nth(0).locator("button").click()
    assert column(page, 0)[0] == "duplicated rate=0.25"


def test_everything_is_reached_by_keyboard_and_seen_to_be(opened, page_path):
    page = opened(page_path).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    seen = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        tag, outline = page.evaluate(
            "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
        )
        if tag == "BODY":
            break
        seen.add(tag)
        assert outline == "solid", tag
    assert {"A", "BUTTON", "SUMMARY", "DIV", "PRE"} <= seen
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1


def test_figures_have_words_and_numbers(opened, page_path):
    page = opened(page_path).page
    for figure in page.locator("figure").all():
        labels = [svg.get_attribute("aria-label") for svg in figure.locator("svg").all()]
        assert len(labels) == 2 and len(labels[0]) > 40 and labels[0] == labels[1]
    with page.expect_download() as download:
        page.locator("a[download]").first.click()
    folder = page_path.parent / "figures"
    assert Path(download.value.path()).read_text() == (folder / download.value.suggested_filename).read_text()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_hostile_text_is_inert(opened, hostile_path, scheme):
    found = opened(hostile_path, 360, scheme)
    page = found.page
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    page.wait_for_timeout(200)
    assert (found.requests, found.complaints) == ([], [])
    assert page.locator("img").count() == 0 and page.locator("script").count() == 1
    text = page.locator("body").inner_text()
    assert text.count("<script>alert(1)</script>") > 10 and "\u202e" not in text and "(cut: " in text
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert hostile_path.stat().st_size < 4_000_000


def test_a_script_that_is_not_the_pages_own_does_not_run(opened, page_path, tmp_path):
    """Even if something were not escaped, the page's policy lets no other script run and nothing be asked for."""
    spoilt = tmp_path / "index.html"
    attack = (
        '<script>document.title = "pwned"</script><img src="https://example.org/x" onerror="document.title=\'pwned\'">'
    )
    spoilt.write_text(page_path.read_text().replace('<main id="main" tabindex="-1">', f'<main id="main">{attack}'))
    found = opened(spoilt)
    assert found.page.title() == "A title"
    assert found.page.locator("th button").count() > 10
    assert any("Content Security Policy" in words for words in found.complaints)
