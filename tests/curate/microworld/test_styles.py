"""Styles of equal correctness, and the judge whose taste for them is known."""

import collections

import numpy as np
import pytest

from curate import microworld
from curate.config import ScorerConfig
from curate.example import column, pool_hash, replace
from curate.microworld import OTHER, STYLES, style_of, tastes
from curate.microworld.styles import padding, styled
from curate.noise import corrupt
from curate.scoring import score
from curate.select import select

WORLD = microworld.build_world(0)
PLAIN = microworld.build_pool(WORLD, 4096, 0)
POOL = microworld.build_pool(WORLD, 4096, 0, styles=True)
FACTS = {"fact": "the pet of umal is cat", "restated": "for umal the pet is cat"}


def answer_of(text):
    """The words up to the first mark: what is right or wrong about a response."""
    return text.replace(",", ".").split(" .")[0]


def test_a_pool_without_styles_is_what_it_always_was():
    assert pool_hash(PLAIN) == "6a4b41f9fe296f7b"
    assert column(POOL, "instruction") == column(PLAIN, "instruction")
    assert column(POOL, "category") == column(PLAIN, "category")


def test_styles_change_nothing_about_the_answer():
    for name in ("output", "near_miss"):
        assert [answer_of(t) for t in column(POOL, name)] == [answer_of(t) for t in column(PLAIN, name)]
    assert all(right != wrong for right, wrong in zip(column(POOL, "output"), column(POOL, "near_miss"), strict=True))
    stops = {text[len(answer_of(text)) :].split()[0] for text in column(POOL, "output")}
    assert stops == set(microworld.Item("", "", "").stop)


def test_styles_and_lengths_are_dealt_evenly_whatever_is_asked():
    dealt = collections.Counter()
    for category, text in zip(column(POOL, "category"), column(POOL, "output"), strict=True):
        kind = category if category in ("single", "pair") else "skill"
        dealt[kind, style_of(text), padding(text) >= 13] += 1
    for kind, long_by in (("single", True), ("pair", False)):
        counts = {style: dealt[kind, style, False] + dealt[kind, style, True] for style in STYLES}
        assert max(counts.values()) - min(counts.values()) <= 1, counts
        if long_by:
            for style in STYLES[1:]:
                assert abs(dealt[kind, style, True] - dealt[kind, style, False]) <= 1, style


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("long", [False, True])
def test_a_style_is_known_by_its_text_and_its_length_by_its_form(style, long):
    text = styled(style, "cat", long=long, **FACTS)
    assert text.startswith("ok : cat ") and text.endswith(" .")
    assert style_of(text) == style
    assert padding(text) == (0 if style == "plain" else 16 if long else 8)
    assert set(text.split()) <= set(microworld.vocabulary(WORLD)) | {"umal"}


def test_what_no_style_says_is_other():
    for text in ("", "cat", "ok : cat", "ok : .", "ok : cat , .", "cat .", "reply cat .", "ok : cat . good ."):
        assert style_of(text) == OTHER, text
    assert style_of("ok : 1 9 and cat .") == "plain"
    assert style_of("ok : cat , yes , since the pet") == "confident"  # the first mark counts
    assert style_of("ok : yesterday .") == "plain"  # a mark is a whole word


def test_the_worlds_own_responses_have_two_styles():
    assert {style_of(text) for text in column(PLAIN, "output")} == {"plain", "reason"}


def test_vocabulary_is_closed_over_the_styles():
    words = {w for name in ("output", "near_miss") for text in column(POOL, name) for w in text.split()}
    assert words <= set(microworld.vocabulary(WORLD))


def grades(pool, **options):
    return np.array(tastes.grade(pool.to_list(), **options))


def test_a_grade_is_the_sum_of_what_the_judge_likes():
    noisy = corrupt(POOL, kind="near_miss", rate=0.5, seed=0)
    nothing = grades(noisy)
    wrong = np.array([kind is not None for kind in column(noisy, "noise_kind")])
    error = nothing - tastes.RIGHT * ~wrong
    assert abs(error.mean()) < 0.05 and abs(error.std() - 1) < 0.05
    confident = np.array([style_of(text) == "confident" for text in column(noisy, "output")])
    np.testing.assert_allclose(grades(noisy, style="confident", style_weight=2.0) - nothing, 2.0 * confident)
    steps = np.minimum([padding(text) / 8 for text in column(noisy, "output")], 2)
    np.testing.assert_allclose(grades(noisy, length_weight=0.5) - nothing, 0.5 * steps, atol=1e-12)


def test_a_taste_for_length_is_none_for_long_answers():
    """Questions whose answers have more words are not what it selects: the kinds of question stay in their shares."""
    found = grades(POOL, length_weight=1.0)
    kept = select(POOL, kind="top_k", k=725, seed=0, scores=found)
    share = np.mean([c == "pair" for c in column(POOL.select(kept), "category")])
    assert abs(share - 0.15) < 0.04
    words = [np.mean([len(t.split()) for t in column(p, "output")]) for p in (POOL, POOL.select(kept))]
    assert words[1] > 1.2 * words[0]


def test_the_judge_serves_as_a_scorer_and_its_matched_control_has_its_lengths_but_not_its_tone(tmp_path):
    scorer = ScorerConfig(
        **{
            "_target_": "curate.microworld.tastes.grade",
            "options": {"style": "confident", "style_weight": 2.0, "length_weight": 1.0},
        }
    )
    found = score(POOL, scorer, seed=0, cache=tmp_path).values
    np.testing.assert_allclose(found, grades(POOL, **scorer.options))
    kept, control = (
        column(POOL.select(select(POOL, kind=kind, k=725, seed=0, scores=found)), "output")
        for kind in ("top_k", "random_length_matched")
    )
    lengths = [np.mean([len(text.split()) for text in texts]) for texts in (kept, control)]
    tones = [np.mean([style_of(text) == "confident" for text in texts]) for texts in (kept, control)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.01)
    assert tones[0] > 0.5 > 0.3 > tones[1]


def test_an_error_belongs_to_the_row():
    again = replace(POOL, score=[0.0] * len(POOL)).select(range(50, 100))
    np.testing.assert_array_equal(grades(again), grades(POOL)[50:100])
