"""The run itself, end to end at its smallest: subset, curve, record, and the promises about them."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from curate import UserError, microworld
from curate.example import column, make_pool
from curate.noise import corrupt
from experiments import asked, measuring, pipeline, prepare, store
from experiments import subset as subsets
from experiments.config import run_id
from tests.experiments.runs import run


def test_a_record_holds_what_others_rely_on(make):
    record, folder = run(make("noise=mixture", "seed.pair=1"))
    assert record["status"] == "done" and record["seeds"]["base"] == 1
    assert set(record["metrics"]) == {"step:0", "step:3", "step:6", "best_val", "end"}
    suites = {"validation", "id", "entity", "wording", "composition", "ood"}
    assert suites <= set(record["metrics"]["end"])
    assert record["metrics"]["end"]["id"]["em"]["n"] == 12 and record["metrics"]["step:3"]["id"]["em"]["n"] == 8
    assert record["metrics"]["step:6"]["id"]["em"]["n"] == record["metrics"]["step:3"]["id"]["em"]["n"]
    assert record["metrics"]["best_val"] == record["metrics"][f"step:{record['best_val_step']}"]
    assert record["data"]["noise_rate"] == 0.5 == record["data"]["subset_noise_rate"]
    assert (
        record["cost"]["tokens_seen"] == record["points"]["step:6"]["tokens"] > record["points"]["step:3"]["tokens"] > 0
    )
    assert "cloze" in record["metrics"]["end"]
    assert {"entropy", "entropy_first", "confident"} <= set(record["metrics"]["step:0"]["ood"])
    assert 0 < record["metrics"]["end"]["theory"]["entropy_first"]["value"] < 3
    assert record["metrics"]["end"]["theory"] == record["metrics"]["best_val"]["theory"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines} == {3, 6}
    items = pq.read_table(folder / "items.parquet").to_pylist()
    asked = {
        p: [i["item"] for i in items if i["point"] == p and i["suite"] == "id"] for p in ("step:3", "step:6", "end")
    }
    assert asked["step:3"] == asked["step:6"] == asked["end"][:8]
    ours = [i["em"] for i in items if i["point"] == "end" and i["suite"] == "id"]
    assert np.mean(ours) == pytest.approx(record["metrics"]["end"]["id"]["em"]["value"])
    assert not list(folder.glob("*.safetensors"))


@pytest.mark.parametrize(("mode", "choose"), [("min", min), ("max", max)])
def test_the_best_point_is_the_validations(make, mode, choose):
    record, _ = run(make(f"evaluation.best={{suite: validation, metric: nll, mode: {mode}}}", "seed.pair=1"))
    found = {step: record["metrics"][f"step:{step}"]["validation"]["nll"]["value"] for step in (3, 6)}
    assert found[3] != found[6]
    assert record["best_val_step"] == choose(found, key=found.get)


def test_a_leak_or_a_model_that_stays_as_it_was_fails_the_run(make, monkeypatch):
    with pytest.raises(measuring.NotMoved, match="did not move"):
        run(make("evaluation.must_move=true", "training.lr=1e-30", "seed.pair=1"))
    config = make("seed.pair=2")
    rows = column(subsets.curate_subset(config).rows, "instruction")
    suites_of = pipeline.suites_of
    leaked = [dataclasses.replace(one, instructions=(rows[0], *one.instructions)) for one in suites_of(config)]
    monkeypatch.setattr(pipeline, "suites_of", lambda _: leaked)
    with pytest.raises(UserError, match="1 of its prompts"):
        run(config)


def test_what_is_corrupted_hangs_on_the_datas_seed_and_what_is_selected_on_its_own(make):
    def made(**seeds):
        config = make("noise=mixture", "arm=random", *(f"seed.{name}={value}" for name, value in seeds.items()))
        rows = subsets.curate_subset(config).rows
        return list(zip(column(rows, "id"), column(rows, "noise_kind"), column(rows, "output"), strict=True))

    one = made(data=1, select=1, train=1)
    assert made(data=1, select=1, train=2) == one
    assert made(data=2, select=1, train=1) != one
    other = made(data=1, select=2, train=1)
    assert other != one
    ledger = {row[0]: row[1:] for row in one}
    shared = [row for row in other if row[0] in ledger]
    assert shared and all(ledger[row[0]] == row[1:] for row in shared)


def test_two_runs_of_one_config_are_equal_but_for_cost_and_environment(make):
    record, folder = run(make("seed.pair=0"))
    log = (folder / "metrics.jsonl").read_bytes()
    (folder / "record.json").unlink()
    torch.manual_seed(99)
    again, _ = run(make("seed.pair=0"))
    for part in ("cost", "environment"):
        del record[part], again[part]
    assert store.canonical(record) == store.canonical(again)
    assert (folder / "metrics.jsonl").read_bytes() == log


def test_a_run_that_was_killed_goes_on_to_the_same_record(make, monkeypatch):
    config = make("arm=random", "evaluation.gradients=true", "survival.checkpoint_minutes=1e-9")
    whole, folder = run(config)
    files = {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "losses.csv", "items.parquet")}
    (folder / "record.json").unlink()
    evaluated, points = pipeline.evaluated, []

    def killed(*arguments, **options):
        points.append(options["everything"])
        if len(points) == 2:
            raise KeyboardInterrupt
        return evaluated(*arguments, **options)

    monkeypatch.setattr(pipeline, "evaluated", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert (folder / store.CHECKPOINT).exists() and store.read(folder) is None
    again, _ = run(config)
    assert points == [False, False, False, True]  # the first point was not made again
    assert files == {name: (folder / name).read_bytes() for name in files}
    for part in ("cost", "environment"):
        del whole[part], again[part]
    assert store.canonical(whole) == store.canonical(again)
    assert not (folder / store.CHECKPOINT).exists()


def test_the_best_predictor_of_a_clean_pool_is_sure(make):
    assert measuring.best_predictor(make())["theory"]["entropy_first"]["value"] == 0.0
    assert measuring.best_predictor(make("noise=off_format", "noise.rate=1.0")) == {}
    rates = [0.2, 0.6]
    low, high = (measuring.best_predictor(make("noise=near_miss", f"noise.rate={r}"))["theory"] for r in rates)
    assert low["entropy_first"]["n"] == high["entropy_first"]["n"] == 24  # entity and wording, not composition
    assert 0 < low["entropy_first"]["value"] < high["entropy_first"]["value"]


def test_what_is_known_before_and_after_is_told_by_band(make):
    from train.models import load_causal_lm

    record, _ = run(make("noise=mixture", "seed.pair=1"))
    bands = {"top", "middle", "rare", "never", "shown"}
    for point in ("step:0", "end"):
        known = record["metrics"][point]["cloze"]
        assert set(known) == bands | {f"nll_{band}" for band in bands}
        assert [known[band]["n"] for band in ("top", "never", "shown")] == [307, 384, 1536]
        assert known["nll_top"]["n"] == 307
    assert record["metrics"]["step:0"]["cloze"]["nll_shown"] != record["metrics"]["end"]["cloze"]["nll_shown"]
    model, tokenizer = load_causal_lm(prepare.build_base(make("seed.pair=1")))
    plain = prepare.cloze(model.eval(), tokenizer, world=0)
    assert plain == {k: v["value"] for k, v in record["metrics"]["step:0"]["cloze"].items()}
    nats, tokens = 0.0, 0
    for probe in [p for p in microworld.cloze(microworld.build_world(0)) if p.band == "rare"]:
        ids = tokenizer(f"{probe.prompt} {probe.value}", add_special_tokens=False, return_tensors="pt")["input_ids"]
        start = len(probe.prompt.split())
        logs = model(input_ids=ids).logits[0].log_softmax(-1)
        nats -= sum(logs[i - 1, ids[0, i]].item() for i in range(start, ids.shape[1]))
        tokens += ids.shape[1] - start
    assert plain["nll_rare"] == pytest.approx(nats / tokens, abs=1e-4)


def test_facts_are_asked_by_what_pretraining_stated(make):
    record, _ = run(make("evaluation=microworld_facts", "data.facts=unknown"))
    for band in microworld.FACTS:
        assert {"em", "nll", "entropy", "confident"} <= set(record["metrics"]["end"][band])
    assert record["metrics"]["end"]["ood"]["em"]["n"] == 3 * 12


def test_the_training_loss_is_told(make):
    record, folder = run(make("noise=mixture", "seed.pair=1"))
    lines = (folder / "losses.csv").read_text().splitlines()
    assert lines[0] == "step,loss" and [line.split(",")[0] for line in lines[1:]] == list("123456")
    losses = [float(line.split(",")[1]) for line in lines[1:]]
    train = {point: record["metrics"][point]["train"] for point in ("step:3", "step:6", "end")}
    assert train["step:3"]["loss"] == {"value": pytest.approx(np.mean(losses[:3])), "n": 3}
    assert train["end"] == {"loss": train["step:6"]["loss"], "spikes": {"value": 0.0, "n": 0}}
    assert set(train["step:6"]) == {"loss"}


def test_gradients_are_compared_on_request_and_the_run_stays_what_it_was(make):
    plain, folder = run(make("noise=mixture", "seed.pair=1"))
    looked, other = run(make("noise=mixture", "seed.pair=1", "evaluation.gradients=true"))
    assert plain["run_id"] != looked["run_id"] and "gradients" not in plain["metrics"]["step:3"]
    names = {"cosine_clean", "cosine_noisy", "cosine_between", "snr_clean", "snr_noisy"}
    for point in ("step:3", "step:6", "best_val", "end"):
        assert set(looked["metrics"][point].pop("gradients")) == names
    assert looked["metrics"] == plain["metrics"]
    assert (folder / "losses.csv").read_bytes() == (other / "losses.csv").read_bytes()


def test_training_rows_are_asked_for_at_every_point(make):
    noisy, _ = run(make("noise=mixture", "seed.pair=1"))
    groups = {"noisy", "noisy_truth", "clean", "unique", "nll_noisy", "nll_noisy_truth", "nll_clean"}
    for point in ("step:3", "step:6", "best_val", "end"):
        assert set(noisy["metrics"][point]["memorised"]) == groups
    assert noisy["metrics"]["end"]["memorised"] == noisy["metrics"]["step:6"]["memorised"]
    assert "memorised" not in noisy["metrics"]["step:0"]
    copied, _ = run(make("arm=duplicated", "duplication.rate=0.5"))
    assert set(copied["metrics"]["end"]["memorised"]) == {"clean", "copied", "nll_clean"}


def test_arms_of_a_pair_share_base_noise_and_order(make):
    configs = [make(f"arm={arm}", "noise=mixture", "seed.pair=1") for arm in ("full", "random", "oracle", "longest")]
    pools = [corrupt(subsets.clean_pool(c)[0], kind="mixture", rate=0.5, seed=c.seed.data) for c in configs]
    assert len({json.dumps([column(p, n) for n in ("output", "noise_kind")]) for p in pools}) == 1
    assert len({prepare.base_folder(c) for c in configs}) == 1
    assert {c.seed.train for c in configs} == {1}
    assert prepare.base_folder(make("seed.pair=0")) != prepare.base_folder(configs[0])


def test_each_arm_trains_on_what_it_says(make):
    data = {arm: run(make(f"arm={arm}", "noise=mixture"))[0]["data"] for arm in ("full", "random", "oracle", "longest")}
    assert data["full"]["rows"] == 200
    assert {data[a]["rows"] for a in ("random", "oracle", "longest")} == {round(0.177 * 200)}
    assert data["oracle"]["subset_noise_rate"] == 0.0
    assert data["longest"]["response_words"] > data["full"]["response_words"]
    assert len({d["subset_hash"] for d in data.values()}) == 4


def test_filtered_and_its_length_matched_control_use_the_reward_model(make):
    filtered, _ = run(make("arm=filtered", "noise=mixture"))
    matched, _ = run(make("arm=random_length_matched", "noise=mixture"))
    plain, _ = run(make("arm=filtered_bt", "noise=mixture"))
    assert filtered["data"]["rows"] == matched["data"]["rows"] == 35
    assert abs(filtered["data"]["response_words"] - matched["data"]["response_words"]) < 1.0
    assert filtered["data"]["subset_hash"] != matched["data"]["subset_hash"] != plain["data"]["subset_hash"]
    assert set(filtered["data"]["scorer_auroc"]) == {"near_miss", "off_format", "swapped_response", "truncated", "all"}
    assert set(filtered["data"]["reward_model"]) == {"head", "likelihood", "joint", "longer_wins", "more_words_win"}
    assert filtered["cost"]["score_s"] > 0
    assert filtered["cost"]["scorer_train_s"] > 0


def test_a_cached_score_keeps_its_price(make):
    config = make("arm=filtered", "noise=mixture")
    first, folder = run(config)
    (folder / "record.json").unlink()
    again, _ = run(config)
    assert again["cost"]["score_s"] == pytest.approx(first["cost"]["score_s"])


def test_duplicates_fill_the_slots(make):
    over = ["arm=duplicated", "noise=mixture", "duplication=concentrated", "duplication.rate=1.0", "duplication.k=16"]
    record, _ = run(make(*over))
    assert (record["data"]["rows"], record["data"]["unique_rows"]) == (200, 16)
    assert record["data"]["duplicate_share"] == pytest.approx(184 / 200)


def test_auroc_is_right_on_a_small_case():
    kinds = [None, None, "truncated", "near_miss"]
    found = subsets.auroc(np.array([3.0, 1.0, 0.0, 2.0]), kinds)
    assert found == {"near_miss": 0.5, "truncated": 1.0, "all": 0.75}
    assert subsets.auroc(np.array([1.0, 1.0, 1.0, 1.0]), kinds)["all"] == 0.5
    assert subsets.auroc(np.array([1.0, np.nan, 0.0, np.nan]), kinds)["all"] == 1.0


def test_a_leak_fails_the_run_unless_it_is_allowed_by_name(make):
    config = make()
    suites = asked.suites_of(config)
    leaked = suites[2].instructions[0]
    rows = make_pool([{"instruction": leaked.upper(), "output": "ok : x ."}], "test")
    with pytest.raises(UserError, match=r"evaluation\.suites\.entity: 1 of its prompts"):
        asked.check_overlap(config, rows, suites)
    asked.check_overlap(make("evaluation.allow_overlap=[entity]"), rows, suites)
    clean, _ = subsets.clean_pool(config)
    asked.check_overlap(config, clean, suites)


def test_a_saved_model_comes_with_its_subset(make):
    from train.models import load_causal_lm

    record, folder = run(make("model.save=true", "seed.pair=1"))
    manifest = json.loads((folder / "model" / "subset.json").read_text())
    assert manifest["subset_hash"] == record["data"]["subset_hash"] and len(manifest["ids"]) == 200
    load_causal_lm(folder / "model")
    assert not list(folder.rglob("*.bin"))


def test_a_run_that_moves_nothing_fails(make):
    suites = asked.suites_of(make())
    items = [
        {"point": point, "suite": "entity", "item": i, "nats": 4.0 + shift * (1 + i % 2), "tokens": 2.0}
        for point, shift in (("step:0", 0.0), ("end", -1.0))
        for i in range(8)
    ]
    measuring.check_moved(items, suites)
    still = [{**i, "nats": 4.0} for i in items]
    with pytest.raises(measuring.NotMoved, match="did not move"):
        measuring.check_moved(still, suites)


@pytest.mark.parametrize(("nats", "enough"), [(0.5, True), (0.01, False)])
def test_answers_that_move_apart_have_moved(make, nats, enough):
    suites = asked.suites_of(make())
    items = [
        {"point": point, "suite": "entity", "item": i, "nats": 4.0 + shift * (1 - 2 * (i % 2)), "tokens": 2.0}
        for point, shift in (("step:0", 0.0), ("end", nats))
        for i in range(8)
    ]
    if enough:
        measuring.check_moved(items, suites)
    else:
        with pytest.raises(measuring.NotMoved):
            measuring.check_moved(items, suites)


def test_what_runs_share_is_built_first_and_said(make, tmp_path):
    asked_for = [(arm, pair) for pair in (0, 1) for arm in ("full", "filtered", "random")]
    runs = {f"{a} {p}": make(f"arm={a}", f"seed.pair={p}", f"store.root={tmp_path}") for a, p in asked_for}
    other = {"other": make("arm=filtered", "seed.pair=0", "model.reward.lr=1e-4", f"store.root={tmp_path}")}
    assert prepare.ahead({**other, **runs}) == ["other", "filtered 1", "filtered 0"]  # each base once, then the rest
    first = prepare.ahead(runs)
    assert first == ["filtered 0", "filtered 1"]
    heard = []
    with prepare.told([runs[name] for name in first], heard.append):
        assert [prepare.build(runs[name]) for name in first] == [None, None]
    assert any(said.startswith("reward model: pairwise accuracy") for said in heard)
    assert len([p for p in (tmp_path / "cache" / "models").glob("base-*") if p.is_dir()]) == 2
    for config in runs.values():
        assert (prepare.base_folder(config) / "model.safetensors").exists()
    assert not list((tmp_path / "cache" / "models").glob("*.part"))
    assert prepare.ahead(runs) == []
    assert prepare.ahead(other) == ["other"]


def test_what_cannot_be_built_is_said_and_left_to_the_runs(make, monkeypatch):
    def fails(config, say):
        raise prepare.UserError("model.pretraining.max_steps=9: too few;\nraise it")

    monkeypatch.setattr(prepare, "build_base", fails)
    heard = []
    with prepare.told([make()], heard.append):
        assert prepare.build(make()) == "model.pretraining.max_steps=9: too few; raise it"
    assert heard == ["model.pretraining.max_steps=9: too few; raise it; the runs that need it try it themselves"]


@pytest.mark.parametrize(
    ("overrides", "rows", "noise"),
    [
        (["scorer=ifd", "scorer.max_ifd=null", "selection=top_k", "selection.k=20"], 20, None),
        (["scorer=perplexity", "selection=band", "selection.low=0.5", "selection.high=0.75"], 50, None),
        (["scorer=oracle", "selection=threshold", "selection.threshold=0.5"], 100, 0.0),
        (["scorer=embedding", "selection=stratified", "selection.k=20"], 20, None),
        (["scorer=ensemble", "selection=top_k", "selection.k=20"], 20, None),
        (["selection=diversity", "selection.floor=null", "selection.k=20"], 20, None),
        (["scorer=oracle", "selection=top_k", "selection.k=100", "rewrite=ledger"], 200, 0.0),
        (["selection=longest", "selection.k=50", "rewrite=ledger"], 200, None),
    ],
)
def test_every_scorer_and_selection_serves_a_run(make, overrides, rows, noise):
    config = make("noise=mixture", *overrides)
    subset = subsets.curate_subset(config)
    assert abs(subset.facts["rows"] - rows) <= 1  # a quantile may fall between two rows
    if noise is not None:
        assert subset.facts["subset_noise_rate"] == noise
    if "rewrite=ledger" in overrides:
        assert subset.facts["subset_noise_rate"] < subset.facts["noise_rate"]
    again = subsets.curate_subset(config)
    assert again.facts == subset.facts
    assert run_id(config) != run_id(make("noise=mixture"))


def test_what_a_run_does_not_read_does_not_change_its_id(make):
    plain = make("scorer=ifd", "selection=top_k", "selection.k=20")
    assert run_id(make("scorer=ifd", "scorer.model=null", "selection=top_k", "selection.k=20")) == run_id(plain)
    assert run_id(make("scorer=perplexity", "selection=top_k", "selection.k=20")) != run_id(plain)
    assert run_id(make("scorer=ifd", "scorer.max_ifd=2.0", "selection=top_k", "selection.k=20")) != run_id(plain)
    judge = ["scorer=judge", "selection=top_k", "selection.k=20"]
    asked = make(*judge)
    assert run_id(make(*judge, "scorer.endpoint.concurrency=2", "scorer.endpoint.timeout=5.0")) == run_id(asked)
    assert run_id(make(*judge, "scorer.endpoint.model=another")) != run_id(asked)


def test_a_suite_may_be_asked_at_the_end_only(configured):
    config = configured("debug=tiny", "evaluation=microworld_facts", "noise=none")
    folder = store.run_folder(config.store.root, run_id(config))
    store.open_run(folder, config.model_dump(mode="json"))
    metrics = pipeline.run(config, folder)["metrics"]
    for point, suites in metrics.items():
        assert ("facts_never" in suites) == (point in ("step:0", "end")), point
        assert {"validation", "entity", "ood"} <= suites.keys()


def test_what_chooses_the_best_point_is_asked_at_every_point(configured):
    for suite in ("validation", "entity"):
        with pytest.raises(ValueError, match=rf"suites\.{suite}\.at=end"):
            configured(f"+evaluation.suites.{suite}.at=end")
