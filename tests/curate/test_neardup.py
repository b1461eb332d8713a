"""Near-duplicates and evaluation prompts are found, and nothing else is."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from datasets import Dataset

from curate import UserError
from curate.example import make_pool
from curate.neardup import Removed, as_rows, decontaminate, near_duplicates, suite_prompts
from curate.shingles import Hashes, band_keys, banding, jaccard, ngrams, words_of

WORDS = [f"word{at}" for at in range(2000)]


def pool_of(*texts: str | tuple[str, str]) -> Dataset:
    pairs = [(text, "done") if isinstance(text, str) else text for text in texts]
    return make_pool([{"instruction": i, "output": o} for i, o in pairs], source="t")


@functools.cache
def shingled(text: str, n: int = 3) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[at : at + n]) for at in range(max(1, len(words) - n + 1))} if words else set()


def similarity(a: str, b: str) -> float:
    one, other = shingled(a), shingled(b)
    return len(one & other) / len(one | other)


def sentences(count: int, words: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, words)) for _ in range(count)]


def changed(text: str, places: int, rng: np.random.Generator) -> str:
    words = text.split()
    for at in rng.choice(len(words), places, replace=False):
        words[at] = "other"
    return " ".join(words)


def by_hand(texts: list[str], threshold: float) -> dict[int, int]:
    """Row -> the first row before it that stays and is as similar."""
    removed: dict[int, int] = {}
    for row, text in enumerate(texts):
        stay = [other for other in range(row) if other not in removed]
        found = next((other for other in stay if similarity(text, texts[other]) >= threshold), None)
        if found is not None:
            removed[row] = found
    return removed


def test_exact_duplicates_differ_in_case_and_space_alone() -> None:
    pool = pool_of("Name a Colour", "name  a\ncolour ", "Name a colour!", "Name a", "colour Name a", "NAME A COLOUR")
    found = near_duplicates(pool, by="prompt")
    assert found == [Removed(1, 0, "exact duplicate", 1.0), Removed(5, 0, "exact duplicate", 1.0)]


def test_what_is_compared() -> None:
    pool = pool_of(("ask", "one answer"), ("Ask", "another answer"), ("other", "One  answer"))
    assert [one.row for one in near_duplicates(pool, by="prompt")] == [1]
    assert near_duplicates(pool) == []
    pool = make_pool([{"instruction": "a", "input": i, "output": "c"} for i in ("x", "y", "X")], source="t")
    for by in ("prompt", "prompt+response"):
        assert [(one.row, one.of) for one in near_duplicates(pool, by=by)] == [(2, 0)]
    with pytest.raises(UserError, match=r"^dedup\.by=output: choose one of prompt\+response, prompt"):
        near_duplicates(pool, by="output")


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_agrees_with_all_pairs_by_hand(threshold: float) -> None:
    rng = np.random.default_rng(1)
    texts = sentences(150, 40)
    texts += [changed(texts[at % 150], at % 7, rng) for at in range(450)]
    texts = [texts[at] for at in rng.permutation(len(texts))]
    pool = pool_of(*texts)
    found = {one.row: one for one in near_duplicates(pool, threshold=threshold, by="prompt")}
    expected = by_hand(texts, threshold)
    kept = set(range(len(texts))) - set(found)
    for row, one in found.items():
        assert one.of in kept and one.of is not None and one.of < row
        assert one.similarity == pytest.approx(similarity(texts[row], texts[one.of]))
        assert one.similarity >= threshold
    assert len(expected) > 50
    assert len(set(expected) & set(found)) >= 0.97 * len(expected)
    assert near_duplicates(pool, threshold=threshold, by="prompt") == list(found.values())
    other = near_duplicates(pool, threshold=threshold, by="prompt", seed=1)
    assert len({one.row for one in other} ^ set(found)) <= 0.05 * len(expected)


def test_a_chain_of_small_steps_is_not_one_duplicate() -> None:
    """b is like a, c like b but not like a: c stays, since b, which goes, cannot stand for it."""
    words = [f"w{at}" for at in range(60)]
    a, b, c = (" ".join(words[at : at + 40]) for at in (0, 3, 6))
    assert similarity(a, b) >= 0.8 > similarity(a, c)
    found = near_duplicates(pool_of(a, b, c), by="prompt")
    assert [(one.row, one.of) for one in found] == [(1, 0)]
    assert found[0].why == f"near-duplicate (Jaccard {similarity(a, b):.2f})"


def test_short_texts_and_texts_without_spaces() -> None:
    pool = pool_of("go", "Go", "go on", "stop", "on go", "go on")
    assert [(one.row, one.of) for one in near_duplicates(pool, by="prompt")] == [(1, 0), (5, 2)]
    text = "春天到了花园里的花都开了孩子们在草地上跑来跑去大家都很高兴地唱着歌跳着舞"
    pool = pool_of(text, "今天天气很好我们去公园散步吧", text + "吧")
    assert [(one.row, one.of) for one in near_duplicates(pool, by="prompt")] == [(2, 0)]


def test_one_answer_to_thousands_of_rows_costs_little() -> None:
    """Rows that share most bands with all others are compared with some of them only, so this ends."""
    tail = " ".join(WORDS[:60])
    pool = pool_of(*(f"row {at} number {at * 7} {tail}" for at in range(3000)))
    found = near_duplicates(pool, threshold=0.99, by="prompt")
    assert found == []
    assert len(near_duplicates(pool, threshold=0.8, by="prompt")) == 2999


def test_portions_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    texts = sentences(60, 30)
    pool = pool_of(*texts, *(changed(text, 1, rng) for text in texts))
    suite = {"s": [changed(text, 1, rng) for text in texts[::2]]}
    whole, clean = near_duplicates(pool, threshold=0.6), decontaminate(pool, suite)
    assert len(whole) > 40 and len(clean) > 20
    monkeypatch.setattr("curate.neardup._CHUNK", 7)
    monkeypatch.setattr("curate.shingles._AT_ONCE", 5)
    assert near_duplicates(pool, threshold=0.6) == whole
    assert (
        near_duplicates(pool.select(range(len(pool) - 1, -1, -1)).select(range(len(pool) - 1, -1, -1)), threshold=0.6)
        == whole
    )
    assert decontaminate(pool, suite) == clean


def test_empty_pools_and_suites() -> None:
    assert near_duplicates(make_pool([], source="t")) == []
    assert decontaminate(make_pool([], source="t"), {"s": ["a b c"]}) == []
    assert decontaminate(pool_of("a"), {}) == decontaminate(pool_of("a"), {"s": []}) == []
    assert decontaminate(pool_of("???"), {"s": ["!!!", "..."]}) == []


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_thresholds_are_similarities(threshold: float) -> None:
    with pytest.raises(UserError, match=r"choose a Jaccard similarity in \(0, 1\]"):
        near_duplicates(pool_of("a"), threshold=threshold)


def test_decontamination_names_suite_match_and_text() -> None:
    rng = np.random.default_rng(3)
    [long, other, third] = sentences(3, 30)
    twelve, thirteen = (" ".join(long.split()[5 : 5 + n]) for n in (12, 13))
    pool = pool_of(
        "what is THE capital, of France?",  # the same but for case and punctuation
        "What is the capital of France, please, and of Spain?",  # a short prompt must be the same as a whole
        f"Please: {thirteen.upper()}!",
        f"please {twelve} {other}".replace(other, "and so on"),
        changed(other, 1, rng),  # no 13 words in a row are sure, but most 3-grams are
        third,
    )
    suites = {"capitals": ["What is the capital of France?"], "long": [long, other], "again": [long]}
    found = decontaminate(pool, suites, ngram=13, threshold=0.7)
    assert [(one.row, one.of) for one in found] == [(0, None), (2, None), (4, None)]
    assert found[0].why == "same prompt as capitals: 'What is the capital of France?'"
    assert found[1].why == f"shares 13 words in a row with long: {long[:60]!r}"
    assert found[1].similarity == pytest.approx(11 / 29)
    near = decontaminate(pool, suites, ngram=31, threshold=0.7)[-1]
    assert near.row == 4 and near.why.startswith("near-duplicate (Jaccard 0.8") and repr(other[:60]) in near.why
    assert [one.row for one in decontaminate(pool, suites, ngram=12, threshold=1.0)] == [0, 2, 3, 4]


def test_n_grams_by_hand() -> None:
    rng = np.random.default_rng(4)
    prompts = sentences(20, 25, seed=5)
    texts = [*sentences(50, 20, seed=6)]
    for at in range(0, 50, 3):
        start, length = rng.integers(0, 12), 6 + at % 5
        texts[at] = f"{texts[at]} {' '.join(prompts[at % 20].split()[start : start + length])} end"
    grams = {gram for prompt in prompts for gram in shingled(prompt, 8)}
    expected = [row for row, text in enumerate(texts) if shingled(text, 8) & grams]
    found = decontaminate(pool_of(*texts), {"s": prompts}, ngram=8, threshold=1.0)
    assert [one.row for one in found] == expected and 5 < len(expected) < 17


def test_hashes_are_sets_of_word_n_grams() -> None:
    texts = ["", "one", "one two", "One two  THREE", "one two three four", "four one two three", " "]
    hashed = ngrams(words_of(pyarrow.array(texts)), 3)
    assert np.diff(hashed.starts).tolist() == [0, 1, 1, 1, 2, 2, 0]
    assert len({int(hashed.flat[at]) for at in range(3)}) == 3
    for a, one in enumerate(texts[1:-1], 1):
        for b, other in enumerate(texts[1:-1], 1):
            assert jaccard(hashed.distinct(a), hashed.distinct(b)) == pytest.approx(similarity(one, other))


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_the_pairs_at_the_threshold(threshold: float) -> None:
    bands, rows = banding(threshold)
    assert bands * rows <= 128
    assert 1 - (1 - threshold**rows) ** bands >= 0.95
    if threshold < 1:
        assert 1 - (1 - threshold ** (rows + 1)) ** (128 // (rows + 1)) < 0.95
    # 400 pairs of sets that share exactly this much: 20 of 20 / threshold
    size, shared = 400, 200
    each = round(shared / threshold)
    rng = np.random.default_rng(7)
    flat = rng.integers(0, 2**63, (size, each), dtype=np.uint64)
    half = (each - shared) // 2
    left, right = flat[:, : shared + half], np.delete(flat, slice(shared, shared + half), axis=1)
    keys = []
    for sets in (left, right):
        starts = np.arange(size + 1) * sets.shape[1]
        keys.append(band_keys(Hashes(sets.ravel(), starts), threshold, seed=0))
    assert (keys[0] == keys[1]).any(0).mean() > 0.9


def test_the_list_of_what_was_removed() -> None:
    pool = pool_of("a b c d", "x", "A b c d")
    removed = near_duplicates(pool, by="prompt") + decontaminate(pool, {"s": ["x"]})
    ids = pool["id"][:]
    assert as_rows(pool, removed) == [
        {"id": ids[2], "kept_id": ids[0], "similarity": 1.0, "why": "exact duplicate"},
        {"id": ids[1], "kept_id": None, "similarity": 1.0, "why": "same prompt as s: 'x'"},
    ]
    assert as_rows(pool, []) == []


def test_prompts_of_evaluation_files(tmp_path: Path) -> None:
    def write(name: str, *rows: Any) -> str:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    self_instruct = {"instruction": "do", "instances": [{"input": "x", "output": "y"}, {"input": "", "output": "z"}]}
    rows = write(
        "a.jsonl", self_instruct, {"question": "q?", "answer": "a"}, {"prompt": "p"}, {"text": "t"},
        {"messages": chat}, {"prompt": chat[:1], "completion": chat[1:]}, {"instruction": "lone", "instances": []},
    )  # fmt: skip
    hard = write("b.json", {"canary": "c", "examples": [{"input": "i", "target": "t"}]})
    (tmp_path / "c.csv").write_text("Type,Question\nx,why?\n")
    table = str(tmp_path / "c.csv")
    assert suite_prompts([rows, hard, table]) == {
        rows: ["do\nx", "do", "q?", "p", "t", "hi\n", "hi\n", "lone"], hard: ["i"], table: ["why?"],
    }  # fmt: skip
    for name, row, message in (
        ("d.jsonl", {"answer": "a"}, "line 1: instruction is missing"),
        ("e.jsonl", 3, "line 1: expected an object, got int"),
    ):
        with pytest.raises(UserError, match=rf"^decontaminate\.paths=.*{name}: {message}"):
            suite_prompts([write(name, row)])
    with pytest.raises(UserError, match="holds no prompt"):
        suite_prompts([write("f.jsonl")])
    with pytest.raises(UserError, match=r"^decontaminate\.paths=.*no such file"):
        suite_prompts([str(tmp_path / "none.jsonl")])


def test_importing_it_is_light() -> None:
    code = "import sys, curate.neardup; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_alpaca_holds_seed_tasks_and_its_near_duplicates_are_real(alpaca: Path) -> None:
    from curate.example import load_pool

    pool = load_pool(alpaca).pool
    text = lambda row: f"{pool[row]['instruction']}\n{pool[row]['input']}\n{pool[row]['output']}"  # noqa: E731
    found = near_duplicates(pool, threshold=0.5)
    assert len(found) > 10
    for one in found[:50]:
        assert one.of is not None
        assert similarity(text(one.row), text(one.of)) == pytest.approx(one.similarity)
    seeds = alpaca.parents[1] / "self_instruct" / "seed_tasks.jsonl"
    if seeds.exists():
        assert 20 < len(decontaminate(pool, suite_prompts([str(seeds)]))) < 200
