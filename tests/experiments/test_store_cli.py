"""What `python -m experiments.store` answers: the runs as a table, one in full, two side by side, all in long form."""

import json

import pandas as pd
import pytest
from synthetic import quickstart

from experiments import UserError, store, store_cli, store_index, store_list, store_show
from experiments import table as tables


def config_of(cell):
    """As runs write it, in small."""
    duplicated = {"rate": cell.levels["duplication.rate"], "k": cell.levels["duplication.k"]}
    return {
        "data": {"name": "microworld"},
        "noise": {"kind": "mixture", "rate": 0.5},
        "duplication": duplicated,
        "evaluation": {"primary": "ood/em", "best": {"suite": "validation", "metric": "em"}},
        "training": {"lr": 2e-5, "points": [48, 96]},
        "seed": {"pair": cell.seeds["pair"], "train": cell.seeds["train"]},
        "store": {"root": f"somewhere/{cell.arm}"},
        "arm": cell.arm,
    }


@pytest.fixture
def cells():
    return quickstart(pairs=2)


@pytest.fixture
def root(tmp_path, cells):
    """Eighteen runs: the longest ones failed, the last was never finished; the first pair is reported."""
    root = tmp_path / "runs"
    for cell in cells[0]:
        folder = store.open_run(store.run_folder(root, cell.run_id), config_of(cell))
        if cell.arm == "longest":
            with store.MetricsLog(folder) as log:
                log.write(tokens=10, step=48, epoch=0.5, suite="ood", metric="em", value=0.25)
            store.fail(folder, cell.run_id, "loss is NaN", step=7, trace="Traceback: here")
        elif cell is not cells[0][-1]:
            store.finish(folder, cells[1][cell.run_id])
    report = root / "reports" / "quick"
    report.mkdir(parents=True)
    first = [cell.run_id for cell in cells[0] if cell.seeds["pair"] == 0]
    (report / "manifest.json").write_text(json.dumps({"runs": sorted(first)[:5], "missing": sorted(first)[5:]}))
    return root


@pytest.fixture
def told(root, capsys):
    """told(*arguments): what the command prints."""

    def run(*arguments, code=0):
        assert store.main([*arguments, f"store.root={root}"]) == code
        return capsys.readouterr().out

    return run


def ids(root, **filters):
    return {run.id for run in store_list.chosen(root, {key.replace("__", "."): v for key, v in filters.items()})}


def test_a_listing_says_what_each_run_is_and_reached(told, cells):
    text = told("list")
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert "18 runs: 15 done, 2 failed, 1 unfinished" in text
    assert len(lines) == 1 + 18 + 1
    assert "ood/em best" in lines["run"]
    cell = next(c for c in cells[0] if c.levels["duplication.k"] == 16)
    record = cells[1][cell.run_id]
    line = lines[cell.run_id]
    assert "quick" in line and "duplicated" in line and "duplication.k=16 duplication.rate=1.0" in line
    assert f"{record['metrics']['best_val']['ood']['em']['value']:.3f}" in line
    minutes = sum(record["cost"][key] for key in ("score_s", "select_s", "train_s", "eval_s")) / 60
    assert line.split()[-1] == f"{minutes:.1f}"
    longest = next(c for c in cells[0] if c.arm == "longest")
    assert lines[longest.run_id].split()[-4:] == ["failed", "–", "–", "–"]


def test_filters_choose_by_any_key(root, cells):
    of = {cell.run_id: cell for cell in cells[0]}
    assert ids(root, experiment="quick") == {i for i in of if of[i].seeds["pair"] == 0}
    assert ids(root, arm="full,random") == {i for i in of if of[i].arm in ("full", "random")}
    assert ids(root, duplication__rate="0.25,1") == {i for i in of if of[i].levels["duplication.rate"] > 0}
    assert ids(root, duplication__k="null", arm="duplicated", seed__pair="1") == {
        i for i in of if (of[i].arm, of[i].levels["duplication.rate"], of[i].seeds["pair"]) == ("duplicated", 0.25, 1)
    }
    assert ids(root, training__lr="2e-5") == ids(root, training__points="[48, 96]") == set(of)
    assert ids(root, training__lr="1") == set()
    assert ids(root, status="failed") == {i for i in of if of[i].arm == "longest"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list", "noise.rat=0.2"], r"noise\.rat=0\.2: no run has such a key; use one of noise\.rate"),
        (["list", "noise=mixture"], r"noise=mixture: no run has such a key; use one of noise\.kind, noise\.rate"),
        (["list", "experiment=slow"], r"experiment=slow: no report .*there are: quick"),
        (["list", "status=ok"], r"status=ok: no such status; use one of done, failed, damaged, unfinished"),
        (["list", "limit=0"], r"limit=0: not a number of runs"),
        (["list", "arm=[1"], r"arm=\[1: not a value"),
        (["show"], "show: 0 names were given; use: show RUN"),
        (["show", "a", "b=1"], r"b=1: no such key here"),
        (["show", "xyz"], "xyz: no run of .* begins so"),
        (["compare", "a"], "compare: 1 names were given"),
        (["export"], "export: 0 names were given"),
        (["export", "out.csv", "noise.rat=1"], r"noise\.rat=1: no run has such a key"),
        (["gc", "yes=maybe"], "yes=maybe: neither true nor false"),
    ],
)
def test_mistakes_are_one_line(told, arguments, said):
    with pytest.raises(UserError, match=said) as error:
        told(*arguments)
    assert "\n" not in str(error.value)


def test_a_store_without_runs_is_a_mistake(tmp_path):
    for command in ("list", "verify", "gc"):
        with pytest.raises(UserError, match=r"store\.root=.*nothing"):
            store.main([command, f"store.root={tmp_path / 'nothing'}"])


def test_help_and_an_unknown_command(told, root, capsys):
    for command in store_cli.COMMANDS:
        assert "export FILE.csv|FILE.parquet" in told(command, "--help")
    assert store.main(["frobnicate"]) == 2
    assert "frobnicate: no such command; use one of list, show" in capsys.readouterr().err


def test_the_newest_come_first_and_a_limit_says_what_is_left_out(told, root):
    text = told("list", "limit=3")
    assert len(text.splitlines()) == 1 + 3 + 1
    assert "18 runs" in text and "the newest 3 are shown" in text
    newest = max(store_index.runs(root), key=lambda run: run.changed)
    assert text.splitlines()[1].startswith(newest.id)


# --- one run, and two -----------------------------------------------------------------------------------------------


def test_a_run_in_full(told, cells):
    cell = next(c for c in cells[0] if c.arm == "filtered")
    record = cells[1][cell.run_id]
    text = told("show", cell.run_id[:12])
    assert f"{cell.run_id}  filtered pair 0  done" in text
    assert "noise.rate: 0.5" in text and "training.points: [48, 96]" in text
    for point in ("best_val", "end"):
        assert f"{record['metrics'][point]['ood']['em']['value']:.3f}" in text
    curve = text[text.index("curve") :].splitlines()
    assert [line.split()[0] for line in curve[2:7]] == ["0", "48", "96", "192", "384"]
    assert "best" in next(line for line in curve if line.startswith(str(record["best_val_step"])))
    assert "train_s: 9.6" in text


def test_a_failed_run_says_why_and_how_far_it_came(told, cells):
    text = told("show", next(c.run_id for c in cells[0] if c.arm == "longest"))
    assert "why: loss is NaN (step 7)" in text and "Traceback: here" in text
    assert "0.250" in text[text.index("curve") :]


def test_an_id_may_be_cut_short_but_not_ambiguous(root, cells):
    one = cells[0][0].run_id
    assert store_show.find(root, one) == store_show.find(root, one[:10]) == one
    twin = root / (one[:8] + "0" * 8)
    store.open_run(twin, {"arm": "full"})
    with pytest.raises(UserError, match=f"{one[:8]}: 2 runs have ids that begin so .*give more of it"):
        store_show.find(root, one[:8])


def test_two_runs_side_by_side(told, cells):
    of = {cell.arm: cell.run_id for cell in cells[0] if cell.seeds["pair"] == 0}
    text = told("compare", of["full"], of["duplicated"])
    head, figures = text[: text.index("figures at best_val")], text[text.index("figures at best_val") :]
    assert "duplication.rate" in head and "arm" in head
    assert "noise.rate" not in head and "store.root" not in head  # the same, and of no matter
    values = [cells[1][of[arm]]["metrics"]["end"]["ood"]["em"]["value"] for arm in ("full", "duplicated")]
    row = next(line for line in figures[figures.index("figures at end") :].splitlines() if line.startswith("ood/em"))
    assert row.split()[1:3] == [f"{value:.3f}" for value in values]
    assert float(row.split()[3].replace("−", "-")) == pytest.approx(values[1] - values[0], abs=1e-3)
    order = [text.index(part) for part in ("config", "figures at best_val", "curve of ood/em", "cost")]
    assert order == sorted(order)


# --- all in long form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_long_form_is_what_the_records_say(told, tmp_path, cells, kind, monkeypatch):
    from experiments import long_form

    monkeypatch.setattr(long_form, "BATCH", 4)  # several batches make one file
    path = tmp_path / "out" / f"all.{kind}"
    assert "of 15 runs" in told("export", str(path))
    frame = pd.read_parquet(path) if kind == "parquet" else pd.read_csv(path, float_precision="round_trip")
    assert list(frame)[:13] == [*tables.IDENTITY, *tables.MEASURE]
    assert frame["run_id"].nunique() == 15
    for cell in cells[0][:3]:
        record = cells[1][cell.run_id]
        rows = frame[(frame["run_id"] == cell.run_id) & (frame["point"] == "step:96")]
        found = {
            (suite, name): value for suite, name, value in rows[["suite", "metric", "value"]].itertuples(index=False)
        }
        metrics = record["metrics"]["step:96"]
        assert found == {(suite, name): c["value"] for suite, some in metrics.items() for name, c in some.items()}
        assert set(rows["tokens"]) == {record["points"]["step:96"]["tokens"]}
        assert set(rows["seed_train"]) == {cell.seeds["train"]} and set(rows["arm"]) == {cell.arm}
    duplicated = frame[frame["arm"] == "duplicated"]
    assert set(duplicated["duplication.rate"]) == {0.25, 1.0}


def test_long_form_of_chosen_runs_leaves_no_half_file(told, tmp_path, monkeypatch):
    assert "of 2 runs" in told("export", str(tmp_path / "full.csv"), "arm=full")
    with pytest.raises(UserError, match="none of the runs that were asked for is finished"):
        told("export", str(tmp_path / "none.csv"), "arm=longest")
    monkeypatch.setattr(tables, "numbers", lambda record: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        told("export", str(tmp_path / "broken.csv"))
    assert [path.name for path in tmp_path.glob("*.*")] == ["full.csv"]


# --- the index ------------------------------------------------------------------------------------------------------


def test_the_index_follows_the_folders(root, cells, monkeypatch):
    before = store_index.runs(root)
    read = []
    entry = store_index._entry
    monkeypatch.setattr(store_index, "_entry", lambda folder: read.append(folder.name) or entry(folder))
    assert store_index.runs(root) == before and read == []  # all from the index
    last, gone = cells[0][-1], cells[0][0]
    store.finish(root / last.run_id, cells[1][last.run_id])
    for path in (root / gone.run_id).iterdir():
        path.unlink()
    (root / gone.run_id).rmdir()
    after = {run.id: run for run in store_index.runs(root)}
    assert read == [last.run_id] and after[last.run_id].status == "done" and gone.run_id not in after
    for spoilt in (b"no database", b""):
        (root / store_index.NAME).write_bytes(spoilt)
        assert {run.id: run for run in store_index.runs(root)} == after
    (root / store_index.NAME).unlink()
    assert {run.id: run for run in store_index.runs(root)} == after


def test_an_index_of_another_layout_is_made_anew(root, monkeypatch):
    before = store_index.runs(root)
    monkeypatch.setattr(store_index, "LAYOUT", store_index.LAYOUT + 1)
    monkeypatch.setattr(store_index, "minutes_of", lambda record: 99.0)
    assert {run.minutes for run in store_index.runs(root)} == {99.0, None}
    assert len(before) == 18


def test_sections_of_a_config_read_as_the_whole(root, cells):
    import yaml

    text = (root / cells[0][0].run_id / "config.yaml").read_text() + "odd:\n- a\n- b: 1\nlast: 'two\n\n  lines'\n"
    assert store_index.flat_text(text) == dict(store_index.flat(yaml.safe_load(text)))
