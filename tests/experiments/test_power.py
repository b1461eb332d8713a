import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from experiments import store
from experiments.claim_files import Claim
from experiments.power import describe_power, detectable, pairs_wanted
from experiments.statistics import decide, estimate
from tests.experiments.synthetic import BEST, cell, quickstart, record
from tests.experiments.test_claims import definition
from tests.experiments.test_shapes import RATE, SLOPE, along, falling, runs
from tests.experiments.test_shapes import claim as shape_claim


def experiment(pairs=12, done=6, bases=3, spread=0.05):
    """`pairs` planned, of which the first `done` have been run; a - b is 0.2 and each pair's own deviation."""
    cells, records = [], {}
    rng = np.random.default_rng(4)
    for pair in range(pairs):
        for arm, score in (("a", 0.6), ("b", 0.4)):
            made = cell(arm, pair, bases=bases)
            cells.append(made)
            if pair < done:
                top = score + (arm == "a") * spread * rng.standard_normal()
                records[made.run_id] = record(made, [0, 0, 0, top])
    return cells, records


def said(made=None, jobs=1, **options):
    cells, records = experiment(**options)
    text = describe_power([made or Claim(**definition(point="end"))], cells, records, BEST, jobs)
    return text.splitlines()[1]


def test_it_says_what_the_planned_pairs_show_and_what_more_would_take():
    line = said()
    assert re.fullmatch(
        r"  test: 12 pairs planned show [\d.]+ or more; 0\.04 \(twice the margin\) takes \d+ pairs, \d+ min", line
    )
    quoted = Claim(**definition(point="end", quoted={"figure": "x", "at": "y", "effect": 0.3}))
    assert re.search(r"; 0\.3 \(as quoted\) takes \d+ pairs, \d+ min$", said(quoted))


def test_nothing_is_guessed_where_nothing_was_run():
    assert said(done=0) == "  test: 12 pairs planned, spread unknown (no run yet)"
    assert "one pair has no spread" in said(done=1)
    assert describe_power([], [], {}, BEST) == ""


def test_a_second_stage_asks_for_what_the_spread_asks_for_whatever_the_mean():
    def wanted(gap=0.2, **options):
        cells, records = experiment(**options)
        for made in cells:
            if made.arm == "b" and made.run_id in records:
                for suites in records[made.run_id]["metrics"].values():
                    suites["ood"]["em"]["value"] += 0.2 - gap
        return pairs_wanted([Claim(**definition(point="end"))], cells, records, BEST)

    assert wanted() == wanted(gap=0.02) == wanted(gap=-0.1)
    assert wanted(spread=0.1) > 2 * wanted(spread=0.05)
    said_so = re.search(r"twice the margin\) takes (\d+) pairs", said())
    assert wanted() == int(said_so[1])
    assert wanted(done=0) is None


def test_more_pairs_show_less_and_more_spread_more():
    def shown(**options):
        return float(said(**options).partition("show ")[2].split()[0])

    assert shown(pairs=24) < shown(pairs=12) < shown(pairs=6)
    assert shown(spread=0.1) > shown(spread=0.05)
    assert shown(pairs=24) > 0.02  # never inside the margin


@pytest.mark.parametrize(("kind", "words"), [
    ("greater", "or more"), ("less", "or less"), ("noninferior", "or more"), ("equivalent", "anything between"),
])  # fmt: skip
def test_each_kind_is_asked_for_its_own(kind, words):
    assert words in said(Claim(**definition(point="end", kind=kind, margin=0.2)))
    assert "show nothing" in said(Claim(**definition(point="end", kind="equivalent", margin=0.001)))


def test_minutes_are_those_of_its_runs_on_the_processes_there_are():
    line = said(Claim(**definition(point="end", margin=0.01)), spread=0.2)
    pairs, minutes = map(int, re.search(r"takes (\d+) pairs, (\d+) min", line).groups())
    seconds = 0.1 + 2.0 + 9.6  # select, eval and train of a synthetic run; two runs a pair
    assert minutes == pytest.approx(pairs * 2 * seconds / 60, rel=0.02)
    halved = int(re.search(r"(\d+) min", said(Claim(**definition(point="end", margin=0.01)), 2, spread=0.2))[1])
    assert halved == pytest.approx(minutes / 2, abs=1)


def test_across_bases_the_bases_are_what_counts():
    these, across = (
        float(said(Claim(**definition(point="end", scope=s)), done=12, bases=6).partition("show ")[2].split()[0])
        for s in ("these", "across")
    )
    assert across != these


@pytest.mark.parametrize(("n", "blocks"), [(6, 3), (12, 3), (12, 1)])
def test_what_is_said_to_be_shown_is_shown_with_that_power(n, blocks):
    distance = detectable("greater", 0.05, n, blocks, 0.02, 0.975)
    rng = np.random.default_rng([11, n, blocks])
    e = estimate(0.02 + distance + 0.05 * rng.standard_normal((2000, n)), np.arange(n) % blocks)
    low, high = e.interval(0.975)
    found = np.mean([decide("greater", lo, hi, 0.02) == "reproduced" for lo, hi in zip(low, high, strict=True)])
    assert found == pytest.approx(0.8, abs=0.04)
    assert detectable("greater", 0.05, blocks, blocks, 0.02, 0.975) is None


def test_levels_are_the_strictest_of_holm():
    cells, records = experiment()
    three = [Claim(**definition(id=f"c{i}", point="end")) for i in range(3)]
    text = describe_power(three, cells, records, BEST)
    assert "98.33 % intervals" in text and "80% power" in text
    alone = describe_power(three[:1], cells, records, BEST)
    shown = [float(t.partition("planned show ")[2].split()[0]) for t in (text, alone)]
    assert shown[0] > shown[1]


@pytest.mark.parametrize(("statistic", "changes", "words"), [
    (SLOPE, {"kind": "less"}, "6 pairs planned show -"),
    ({"name": "optimum", "along": RATE}, {"kind": "less", "reference": 0.2, "margin": 0.05}, "would tell the levels"),
    ({"name": "interior_gain", "along": RATE}, {}, "6 pairs planned show 0."),
])  # fmt: skip
def test_statistics_have_their_say(statistic, changes, words):
    cells, records = runs(falling, along(RATE, (0.0, 0.1, 0.2, 0.4)), noise=0.02)
    text = describe_power([shape_claim(statistic, **changes)], cells, records, BEST)
    assert words in text


def test_the_sweeper_prints_it_with_the_plan(tmp_path, capsys):
    """By file, since the installed sweeper may be another copy."""
    file = Path(__file__).resolve().parents[2] / "experiments" / "sweeper" / "__init__.py"
    spec = importlib.util.spec_from_file_location("sweeper_by_file", file)
    sweeper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sweeper)
    cells, records = quickstart()
    for run_id, made in records.items():
        store.finish(store.run_folder(tmp_path, run_id), made)
    best = SimpleNamespace(model_dump=lambda: {"suite": BEST.suite, "metric": BEST.metric, "mode": BEST.mode})
    plan = SimpleNamespace(
        cells=cells,
        configs=dict.fromkeys(c.run_id for c in cells),
        root=tmp_path,
        evaluation=SimpleNamespace(best=best),
    )
    made = Claim(**definition(treatment={"arm": "filtered"}, control={"arm": "full"}))
    sweeper.PairedSweeper._power(None, plan, [made], 2, Console(width=200))
    assert "test: 6 pairs planned show" in capsys.readouterr().out
