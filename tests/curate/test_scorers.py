"""Scorers beside the reward model: likelihoods, embeddings, surface, ensembles, one's own."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from curate import UserError
from curate.config import ScorerConfig
from curate.example import column, make_pool
from curate.rewrite import rewrite
from curate.scoring import Models, score
from curate.scoring.embedding import embed, nearest, row_texts
from curate.scoring.surface import SURFACE, surface

TEMPLATE = {"without_input": "{instruction} ->", "with_input": "{instruction} | {input} ->"}
WORDS = "the error flows back through layers red blue name a colour why".split()


@pytest.fixture
def rows() -> Dataset:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, size)) for size in rng.integers(2, 12, 24)]
    return make_pool([{"instruction": f"name {WORDS[at % 12]}", "output": text} for at, text in enumerate(texts)], "s")


def by_hand(model: Any, tokenizer: Any, prompt: str, response: str, skip: int) -> float:
    """Mean log-likelihood of the response's tokens but the first `skip`, one row at a time."""
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"] if prompt else []
    after = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    ids = torch.tensor([before + after])
    with torch.inference_mode():
        logs = model(input_ids=ids).logits[0].log_softmax(-1)
    at = range(max(len(before), 0) + skip, ids.shape[1])
    return float(np.mean([logs[place - 1, ids[0, place]].item() for place in at]))


def test_ifd_is_the_loss_with_the_prompt_over_the_loss_without(
    rows: Dataset, reference: Any, reference_folder: Path, tokenizer: Any
) -> None:
    config = ScorerConfig(kind="ifd", model=str(reference_folder), max_ifd=None)
    found = score(rows, config, seed=0, template=TEMPLATE)
    for row, value in zip(rows.to_list(), found.values, strict=True):
        given = by_hand(reference, tokenizer, f"{row['instruction']} ->", row["output"], skip=1)
        alone = by_hand(reference, tokenizer, "", row["output"], skip=1)
        assert value == pytest.approx(given / alone, abs=1e-5)
    limited = score(rows, config.model_copy(update={"max_ifd": 1.0}), seed=0, template=TEMPLATE)
    high = found.values >= 1
    assert 0 < high.sum() < len(rows)
    assert limited.values.tolist() == np.where(high, -found.values, found.values).tolist()
    assert not limited.reasons


def test_perplexity_scores_what_is_likely_high(
    rows: Dataset, reference: Any, reference_folder: Path, tokenizer: Any, tmp_path: Path
) -> None:
    config = ScorerConfig(kind="perplexity")
    found = score(rows, config, seed=0, template=TEMPLATE, cache=tmp_path, models=Models(causal=reference_folder))
    for row, value in zip(rows.to_list(), found.values, strict=True):
        expected = by_hand(reference, tokenizer, f"{row['instruction']} ->", row["output"], skip=0)
        assert value == pytest.approx(expected, abs=1e-5)
    again = score(rows, config, seed=0, template=TEMPLATE, cache=tmp_path, models=Models(causal=reference_folder))
    assert (again.computed, again.values.tolist()) == (0, found.values.tolist())
    with pytest.raises(UserError, match=r"scorer.model=null: which causal language model\?"):
        score(rows, config, seed=0)


def test_embeddings_are_of_unit_length_and_kept(rows: Dataset, reference_folder: Path, tmp_path: Path) -> None:
    made = embed(row_texts(rows), reference_folder, cache=tmp_path)
    assert made.shape[0] == len(rows)
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    alone = np.concatenate([embed([text], reference_folder) for text in row_texts(rows)[:5]])
    assert np.allclose(made[:5], alone, atol=1e-5)  # padding changes nothing
    [file] = (tmp_path / "embeddings").iterdir()
    np.save(file, np.zeros_like(made))
    assert not embed(row_texts(rows), reference_folder, cache=tmp_path).any()  # read, not computed


def test_what_stands_apart_scores_high_and_what_is_like_the_target_does(
    rows: Dataset, reference_folder: Path, tmp_path: Path
) -> None:
    twins = make_pool([*rows.to_list()[:6], {**rows[0], "id": "twin"}], "s")
    config = ScorerConfig(kind="embedding", model=str(reference_folder))
    apart = score(twins, config, seed=0).values
    assert apart[0] == pytest.approx(0, abs=1e-5) and apart[6] == pytest.approx(0, abs=1e-5)
    assert (apart[1:6] > 1e-4).all()
    target = tmp_path / "target.json"
    target.write_text(json.dumps([{"instruction": rows[3]["instruction"], "output": rows[3]["output"]}]))
    like = score(twins, config.model_copy(update={"target": str(target)}), seed=0).values
    assert np.argmax(like) == 3 and like[3] == pytest.approx(1, abs=1e-5)
    with pytest.raises(UserError, match=r"scorer.neighbours=9: the pool has 7 rows"):
        score(twins, config.model_copy(update={"neighbours": 9}), seed=0)


def test_nearest_is_the_mean_over_neighbours() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 8)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    cosine = points @ points.T
    np.fill_diagonal(cosine, -9)
    expected = np.sort(cosine, axis=1)[:, -3:].mean(axis=1)
    assert np.allclose(nearest(points, points, 3, same=True), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("feature", "text", "value"),
    [
        ("words", "a b  c\n", 3),
        ("characters", "a b", 3),
        ("lexical_variety", "a b a b", 1.0),
        ("lexical_variety", "", 0.0),
        ("list_items", "1. x\n2) y\n- z\n* w\nno - item", 4),
        ("hedges", "Perhaps it might be; I think so.", 3),
        ("boilerplate", "Certainly! As an AI, I hope this helps.", 3),
    ],
)
def test_surface_features(feature: str, text: str, value: float) -> None:
    assert SURFACE[feature](text) == pytest.approx(value)


def test_surface_is_by_name(rows: Dataset) -> None:
    assert surface(rows, "characters").tolist() == [len(text) for text in column(rows, "output")]
    with pytest.raises(UserError, match=r"scorer.feature=beauty: choose one of words, characters"):
        score(rows, ScorerConfig(kind="surface", feature="beauty"), seed=0)


def test_an_ensemble_is_the_mean_rank(rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_1.py").write_text(
        "def score(rows): return [None if len(r['output']) % 5 == 0 else 1.0 for r in rows]"
    )
    monkeypatch.syspath_prepend(tmp_path)
    members = [{"kind": "length"}, {"kind": "surface", "feature": "characters"}]
    both = score(rows, ScorerConfig(kind="ensemble", members=members), seed=0).values
    words, characters = surface(rows, "words"), surface(rows, "characters")
    longer = (words[:, None] > words) & (characters[:, None] > characters)
    assert (both[:, None] > both)[longer].all()
    assert 0 < both.min() < both.max() <= 1
    three = ScorerConfig(kind="ensemble", members=[*members, {"kind": "own", "target": "mine_1.score"}])
    found = score(rows, three, seed=0)
    missing = characters % 5 == 0
    assert missing.any() and (np.isnan(found.values) == missing).all()
    assert found.reasons[int(np.flatnonzero(missing)[0])] == "the scorer gave none"


def test_ones_own_scorer(rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "mine_2.py"
    module.write_text("def score(rows, weight=1.0):\n    return [weight * len(r['output']) for r in rows]\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = ScorerConfig.model_validate({"kind": "length", "_target_": "mine_2.score", "options": {"weight": 2}})
    found = score(rows, config, seed=0, cache=tmp_path)
    assert found.values.tolist() == [2 * len(text) for text in column(rows, "output")]
    assert score(rows, config, seed=0, cache=tmp_path).computed == 0
    assert score(rows, config.model_copy(update={"options": {"weight": 3}}), seed=0, cache=tmp_path).computed == len(
        rows
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def score(rows): return [1.0]", "gave 1 scores for 24 rows; give one for each"),
        ("def score(rows): return ['x' for _ in rows]", "a score is no number"),
        ("def score(rows): raise KeyError('answer')", r"raised KeyError\('answer'\) \(bad_\d.py, line 1\); mend it"),
        ("score = 3", "has no function score"),
        ("import no_such_module", "cannot import bad_"),
    ],
)
def test_mistakes_in_ones_own_scorer_are_one_line(
    rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    name = f"bad_{abs(hash(source)) % 10}"
    sys.modules.pop(name, None)
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        score(rows, ScorerConfig.model_validate({"_target_": f"{name}.score"}), seed=0)
    assert str(error.value).startswith(f"scorer._target_={name}.score: ")


def test_rows_that_a_selection_drops_are_repaired_from_the_ledger(pool: Dataset) -> None:
    from curate.config import RewriteConfig
    from curate.noise import corrupt

    noisy = corrupt(pool, kind="near_miss", rate=0.5, seed=0)
    flagged = np.arange(0, len(pool), 2)
    mended = rewrite(noisy, flagged, RewriteConfig(by="ledger")).to_list()
    for at, (before, after, truth) in enumerate(zip(noisy.to_list(), mended, pool.to_list(), strict=True)):
        assert after == (truth if at % 2 == 0 else before)


def test_scoring_modules_that_need_no_torch_do_not_import_it() -> None:
    code = "import sys, curate.job, curate.scoring.own, curate.scoring.ensemble, curate.rewrite;"
    code += "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_example_of_the_manual_works(rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.scoring import own

    lines = [line[4:] for line in (own.__doc__ or "").splitlines() if line.startswith("    ")]
    (tmp_path / "my_module.py").write_text(
        "\n".join(lines[: next(i for i, text in enumerate(lines) if "python" in text)])
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = score(rows, ScorerConfig.model_validate({"_target_": "my_module.score"}), seed=0)
    assert not any(math.isnan(value) for value in found.values)
