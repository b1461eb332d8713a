"""Stories: every one of the file is in one place, and what is tested is not in the pool."""

import json
from pathlib import Path

import pytest

from curate import UserError
from curate.example import column
from curate.text import load_stories
from tests.stories import stories, write_stories

SAMPLE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tinystories" / "tinystories_sample.txt"


def squeezed(text):
    return " ".join(text.casefold().split())


def held(loaded):
    return [*loaded.held_out["validation"], *loaded.held_out["test"]]


def test_every_story_is_in_one_place(tmp_path):
    texts = stories(400)
    loaded = load_stories(str(write_stories(tmp_path / "s.txt", texts)))
    found = [*column(loaded.pool, "output"), *held(loaded)]
    assert sorted(found) == sorted(texts)
    assert loaded.read == 400
    assert 0.02 < len(loaded.held_out["validation"]) / 400 < 0.09
    assert 0.06 < len(loaded.held_out["test"]) / 400 < 0.15
    assert set(column(loaded.pool, "instruction")) == {""}


def test_the_parts_depend_on_what_a_story_says_and_on_nothing_else(tmp_path):
    texts = stories(400)
    one = load_stories(str(write_stories(tmp_path / "a.txt", texts)))
    other = load_stories(str(write_stories(tmp_path / "b.txt", texts[::-1][:300])))
    assert set(held(other)) == set(held(one)) & set(texts[::-1][:300])


def test_doubles_of_a_tested_story_are_not_trained_on(tmp_path):
    texts = stories(400)
    tested = load_stories(str(write_stories(tmp_path / "a.txt", texts))).held_out["test"]
    doubles = [f"{t} The end of {i}." for i, t in enumerate(tested)]  # nearly the same, so most hash to the pool
    exact = [t.upper() for t in tested]
    loaded = load_stories(str(write_stories(tmp_path / "b.txt", texts + doubles + exact)))
    assert loaded.near == len(doubles) + len(exact)
    trained = {squeezed(t) for t in column(loaded.pool, "output")}
    assert not trained & {squeezed(t) for t in [*tested, *doubles]}
    assert loaded.read == 400 + len(doubles) + len(exact)


def test_bad_stories_are_set_aside_and_counted(tmp_path):
    path = tmp_path / "s.txt"
    write_stories(path, [*stories(200), "   ", "placeholder"])
    path.write_bytes(path.read_bytes().replace(b"placeholder", b"caf\xe9"))
    loaded = load_stories(str(path))
    assert [(one.line, one.reason) for one in loaded.bad] == [
        (201, "text is empty"), (202, "text is not valid UTF-8"),
    ]  # fmt: skip
    assert loaded.read == 202
    with pytest.raises(UserError, match=r"max_bad_share=0\.001: 2 of 202"):
        load_stories(str(path), 0.001)


def test_other_files_are_read_too(tmp_path):
    texts = stories(200)
    want = sorted(column(load_stories(str(write_stories(tmp_path / "s.txt", texts))).pool, "output"))
    (tmp_path / "blank.txt").write_text("\n\n".join(texts) + "\n")
    (tmp_path / "s.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    for name in ("blank.txt", "s.jsonl"):
        assert sorted(column(load_stories(str(tmp_path / name)).pool, "output")) == want
    (tmp_path / "one.txt").write_text(texts[0])
    with pytest.raises(UserError, match=r"one\.txt: none of 1 stories"):
        load_stories(str(tmp_path / "one.txt"))
    with pytest.raises(UserError, match="no such file"):
        load_stories(str(tmp_path / "missing.txt"))


def test_the_sample_of_tinystories_is_read_whole():
    if not SAMPLE.is_file():
        pytest.skip(f"needs the sample of TinyStories at {SAMPLE}")
    loaded = load_stories(str(SAMPLE))
    assert loaded.read == 2317
    assert not loaded.bad
    assert not {squeezed(t) for t in held(loaded)} & {squeezed(t) for t in column(loaded.pool, "output")}
