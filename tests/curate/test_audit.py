"""Planted effects are found, chance is called chance, and what is written is safe, finite and the same each time."""

import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from curate.__main__ import main
from curate.audit import audit
from curate.audit_page import page
from curate.card import REDACTED, clean, redact
from curate.diversity import entropy, excerpt, spread, text_measures
from curate.example import make_pool, replace
from curate.noise import corrupt
from curate.preferences import Preference, read_preferences
from curate.scoring.surface import length
from curate.validity import Judged, against_people, agreement


@pytest.fixture
def noisy(pool: Dataset) -> Dataset:
    return corrupt(pool, kind="swapped_response", rate=0.3, seed=0)


def measure(figures: dict[str, Any], start: str) -> dict[str, Any]:
    [found] = [m for m in figures["measures"] if m["name"].startswith(start)]
    return found


def oracle(pool: Dataset) -> np.ndarray:
    return np.array([float(kind is None) for kind in pool["noise_kind"][:]])


def test_the_oracle_is_right_and_length_knows_nothing_of_swapped_answers(noisy: Dataset) -> None:
    kept = np.flatnonzero(oracle(noisy))
    figures = audit(noisy, kept, scores={"oracle": oracle(noisy), "length": length(noisy)})
    found = {row["scorer"]: row for row in figures["validity"]["rows"] if row["kind"] == "all"}
    assert set(found) == {"oracle", "length", "longer wins (words)", "longer wins (characters)", "random"}
    assert found["oracle"]["auroc"] == 1 and found["oracle"]["low"] > 0.95
    for name in ("length", "longer wins (words)", "random"):
        assert found[name]["low"] < 0.5 < found[name]["high"]
    noise = {row["kind"]: row for row in figures["noise"]}
    assert (noise["clean"]["removed"], noise["swapped_response"]["removed"]) == (0, 120)
    assert noise["swapped_response"]["share"] == 1 and noise["clean"]["random"] == pytest.approx(0.3)


def test_rows_without_a_score_are_counted(noisy: Dataset) -> None:
    scores = np.where(np.arange(400) < 100, np.nan, oracle(noisy))
    figures = audit(noisy, np.arange(50), scores={"some": scores})
    row = next(r for r in figures["validity"]["rows"] if (r["scorer"], r["kind"]) == ("some", "all"))
    assert row["unscored"] == 100 and row["clean"] + row["noisy"] == 300
    assert measure(figures, "score: some")["kept"] is None
    json.dumps(figures, allow_nan=False)
    page(figures, "unscored")


def test_one_category_is_a_shift_and_a_loss_of_diversity(pool: Dataset) -> None:
    rare = np.flatnonzero([name == "rare" for name in pool["category"][:]])
    figures = audit(pool, rare, scores={})
    rows = {row["name"]: row for row in figures["categories"]["rows"]}
    assert rows["rare"]["share_kept"] == 1 and rows["rare"]["beyond_chance"]
    assert rows["common"]["kept"] == 0 and rows["common"]["beyond_chance"]
    lost = measure(figures, "entropy of categories")
    assert lost["kept"] == 0 and lost["beyond_chance"] and lost["change_high"] < 0


def test_the_same_words_again_and_again_are_a_loss_of_diversity(pool: Dataset) -> None:
    outputs = pool["output"][:]
    pool = replace(pool, output=["the same four words " * 5 if at < 100 else outputs[at] for at in range(400)])
    figures = audit(pool, np.arange(100), scores={})
    for name in ("distinct-1 of responses", "distinct-2 of responses", "zlib of responses", "lexical variety"):
        found = measure(figures, name)
        assert found["beyond_chance"] and found["change_high"] < 0 and found["kept"] < found["low"], name


def test_longer_rows_are_longer_and_no_less_diverse_for_it(pool: Dataset) -> None:
    longest = np.argsort(-length(pool), kind="stable")[:100]
    figures = audit(pool, longest, scores={"length": length(pool)})
    assert measure(figures, "words")["beyond_chance"] and measure(figures, "words")["change_low"] > 0
    assert figures["lengths"]["quantiles"]["0.5"]["kept"] > figures["lengths"]["quantiles"]["0.5"]["before"]
    assert sum(figures["lengths"]["before"]) == pytest.approx(1, abs=1e-4)
    beside = {(row["a"], row["b"]): row for row in figures["agreement"]}
    assert beside["the selection", "longer wins (words)"]["overlap"] == 1
    assert beside["length", "longer wins (words)"]["rho"] == 1


def test_a_random_selection_is_called_random(pool: Dataset) -> None:
    flagged = 0
    for seed in range(20):
        kept = np.random.default_rng([99, seed]).permutation(400)[:120]
        figures = audit(pool, kept, scores={"length": length(pool)}, seed=seed)
        flagged += any(m["beyond_chance"] for m in [*figures["measures"], *figures["categories"]["rows"]])
    assert flagged <= 4  # two families at 5 % each: two in twenty


def test_keeping_everything_is_no_finding(pool: Dataset) -> None:
    figures = audit(pool, np.arange(400), scores={"length": length(pool)})
    assert not any(m["beyond_chance"] for m in [*figures["measures"], *figures["categories"]["rows"]])
    with pytest.raises(ValueError, match="nothing was kept"):
        audit(pool, np.arange(0), scores={})


def test_embeddings_and_tokens_when_they_are_given(pool: Dataset) -> None:
    points = np.random.default_rng(0).normal(size=(400, 8))
    points[:80] = points[0] + 0.01 * points[:80]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    figures = audit(pool, np.arange(80), scores={}, embeddings=points, token_count=lambda text: len(text.split()))
    found = measure(figures, "embedding spread")
    assert found["kept"] < 0.01 < found["low"] and found["beyond_chance"] and figures["embeddings"] is None
    assert figures["tokens"]["before"] == sum(len(f"{r['instruction']} {r['output']}".split()) for r in pool)
    without = audit(pool, np.arange(80), scores={})
    assert without["embeddings"] and "estimated" in without["tokens"]["how"]


def test_an_encoder_measures_the_spread_of_any_selection(
    tmp_path: Path, reference_folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = sorted(tokenizer.get_vocab())
    rows = [{"instruction": f"q{at}", "output": f"{words[at % 7]} {words[at % 5]} {at}"} for at in range(60)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = ["data.path=in.jsonl", "selection=top_k", "selection.k=20", "out.path=out.jsonl", "out.audit=true"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # both are put back: the command sets them
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["curate", *overrides, f"out.encoder={reference_folder}"])
    main()
    figures = json.loads((tmp_path / "out.jsonl.audit.json").read_text())
    assert figures["embeddings"] is None and measure(figures, "embedding spread")["before"] > 0
    monkeypatch.setattr(sys, "argv", ["curate", *overrides, "out.encoder=nowhere/at_all"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "nowhere/at_all" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").exists()  # what was kept is kept


def test_measures_of_diversity() -> None:
    a = np.random.default_rng(0).normal(size=(20, 4))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    pairs = [1 - a[i] @ a[j] for i in range(20) for j in range(i)]
    assert spread(a) == pytest.approx(np.mean(pairs)) and spread(a[:1]) == 0
    assert entropy(np.array([0, 0, 1, 1])) == 1 and entropy(np.array([2, 2])) == 0
    found = text_measures("a b a b".split())
    assert (found["distinct-1"], found["distinct-2"]) == (0.5, pytest.approx(2 / 3))


def test_sets_are_compared_on_equally_many_words(pool: Dataset) -> None:
    order = np.array([7, 3, 250, 12])
    words = [word for row in order for word in pool[int(row)]["output"].lower().split()]
    for budget in (1, 10, len(words)):
        assert excerpt(pool, "output", order, length(pool), budget) == words[:budget]


def test_people(tmp_path: Path) -> None:
    texts = [("long " * 9, "short")] * 30 + [("short", "long " * 9)] * 10 + [("a b", "c d")] * 10
    pairs = [Preference("q", "", *pair) for pair in texts]
    right = np.ones(50), np.zeros(50)
    unsure = np.concatenate([np.full(10, np.nan), np.ones(40)]), np.ones(50)
    found = {row["scorer"]: row for row in against_people(Judged(pairs, {"right": right, "unsure": unsure}))}
    assert (found["right"]["accuracy"], found["right"]["balanced"]) == (1, 1)
    longer = found["longer wins (words)"]
    assert longer["accuracy"] == pytest.approx((30 + 5) / 50) and longer["balanced"] == 0.5
    assert longer["balanced_low"] < 0.5 < longer["balanced_high"]
    assert (found["unsure"]["accuracy"], found["unsure"]["unscored"], found["unsure"]["pairs"]) == (0.5, 10, 40)
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"src": "Instruction: Add Input: 1 2", "pos": "Response: 3", "neg": "Response: 4"},
        {"prompt": "p", "chosen": [{"role": "assistant", "content": "yes"}], "rejected": "no"},
        {"prompt": "p", "chosen": "yes", "rejected": ""},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = [Preference("Add", "1 2", "3", "4"), Preference("p", "", "yes", "no")]
    assert read_preferences(str(file), "data.pairs") == read


def test_escapes_in_preferences_are_put_back_on_request(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": "p\\nq", "chosen": "a\nb", "rejected": 'a\\nb \\"c\\"'}))
    assert read_preferences(str(file), "data.pairs")[0].rejected == 'a\\nb \\"c\\"'
    assert read_preferences(str(file), "data.pairs", unescape=True) == [Preference("p\nq", "", "a\nb", 'a\nb "c"')]


def test_agreement_of_unrelated_scorers_is_what_chance_gives() -> None:
    a, b = np.random.default_rng(0).random((2, 500))
    b[:5] = np.nan
    found = {(row["a"], row["b"]): row for row in agreement({"a": a, "b": b, "-a": -a}, np.arange(100))}
    assert found["a", "b"]["low"] < 0 < found["a", "b"]["high"]
    assert found["a", "b"]["chance_low"] <= found["a", "b"]["overlap"] <= found["a", "b"]["chance_high"]
    assert found["a", "b"]["chance"] == pytest.approx(0.2)
    assert (found["a", "-a"]["rho"], found["a", "-a"]["overlap"]) == (-1, 0)


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """The command in a folder, with the code that stands beside these tests."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "curate", *overrides]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)


BAD = "<script>alert(1)</script>"


def test_the_page_escapes_what_data_say_and_asks_for_nothing() -> None:
    rows = [{"instruction": f"{BAD} {at}", "output": f"{BAD} \ud800 {at}", "category": BAD} for at in range(6)]
    rows += [{"instruction": "b", "output": f"b {at}", "category": "b"} for at in range(6)]
    pool = make_pool([{k: v.replace("\ud800", "") for k, v in row.items()} for row in rows], source=BAD)
    pool = replace(pool, noise_kind=[BAD if at % 3 == 0 else None for at in range(12)])
    html = page(audit(pool, np.arange(6), scores={BAD: length(pool)}) | {"no_bias": BAD}, title=BAD)
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "http" not in html and "url(" not in html and "@import" not in html


def test_secrets_and_places_are_struck_out() -> None:
    key = "sk-" + "aB3" * 8
    text = redact(f"data.path=/home/me/data/in.json scorer.key={key} x={key} url=https://u:pw@host/v1 max_tokens=5")
    assert text == f"data.path=in.json scorer.key={REDACTED} x={REDACTED} url=https://{REDACTED}host/v1 max_tokens=5"
    assert redact("out.path=runs/a.json lr=1/2") == "out.path=runs/a.json lr=1/2"
    assert redact("[~/a/b.json,/c/d.json] C:\\me\\e.json") == "[b.json,d.json] e.json"
    assert redact("Authorization: Bearer abcdef") == f"Authorization: {REDACTED}"
    assert clean({"api_key": "x", "api_key_env": "OPENAI_API_KEY", "deep": [{"password": "y"}], "n": 3}) == {
        "api_key": REDACTED, "api_key_env": "OPENAI_API_KEY", "deep": [{"password": REDACTED}], "n": 3,
    }  # fmt: skip


def test_the_command_writes_an_audit_and_a_card(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{at}", "output": " ".join(["word"] * (at % 30 + 2) + [str(at)])} for at in range(120)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{}\n")
    (tmp_path / "LICENSE").write_text("\nOur Licence 1.0\n")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "chosen": "a b", "rejected": "c"}\n' * 5)
    token = "hf_" + "x" * 20
    overrides = [
        f"data.path={tmp_path}/in.jsonl", "data.pairs_valid=pairs.jsonl", "noise=truncated", "noise.rate=0.25",
        "selection=top_k", "selection.k=40", f"out.path={tmp_path}/out.jsonl", "out.audit=true",
        f"+data.fields.category={token}",
    ]  # fmt: skip
    written = []
    for _ in range(2):
        ended = run(tmp_path, *overrides)
        assert ended.returncode == 0, ended.stderr
        names = ("audit.html", "audit.json", "card.json", "card.md")
        written.append({name: (tmp_path / f"out.jsonl.{name}").read_bytes() for name in names})
    assert written[0] == written[1]
    figures, card = (
        json.loads(written[0][name], parse_constant=lambda text: pytest.fail(text))
        for name in ("audit.json", "card.json")
    )
    assert figures["rows"] == {"before": 120, "kept": 40, "removed": 80}
    assert next(e for e in figures["bias"] if e["edit"] == "fluff: preface")["low"] > 0
    assert figures["pairs"]["rows"][0]["accuracy"] == 1
    assert card["source"]["sha256"] == hashlib.sha256((tmp_path / "in.jsonl").read_bytes()).hexdigest()
    assert card["file"]["sha256"] == hashlib.sha256((tmp_path / "out.jsonl").read_bytes()).hexdigest()
    assert card["source"]["licence"] == "LICENSE: Our Licence 1.0"
    counts = card["rows"]
    assert counts["in"] == counts["kept"] + counts["rejected"] + counts["set aside"] == 121
    assert card["noise"]["planted"] == {"kind": "truncated", "rate": 0.25}
    for name, text in written[0].items():
        assert str(tmp_path).encode() not in text and token.encode() not in text, name


def test_a_scorer_that_the_selection_did_not_use_is_audited_too(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{at}", "output": "word " * (at % 30 + 2)} for at in range(60)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = ("data.path=in.jsonl", "selection=random", "selection.k=20", "out.path=out.jsonl", "out.audit=true")
    assert run(tmp_path, *base, "scorer=length").returncode == 0
    figures = json.loads((tmp_path / "out.jsonl.audit.json").read_text())
    assert {row["b"] for row in figures["agreement"]} == {"length", "longer wins (words)"}
    assert run(tmp_path, *base, "scorer=random").returncode == 0
    figures = json.loads((tmp_path / "out.jsonl.audit.json").read_text())
    assert figures["bias"] is None and "random" in figures["no_bias"]
