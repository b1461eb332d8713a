"""The world in running text: about whom it is asked to be, as wrong as it is asked to be, and parsed back."""

import pytest

from curate import UserError, microworld
from curate.example import column


@pytest.fixture(scope="module")
def world():
    return microworld.build_world(0)


def sentences(pool):
    return [s.strip() for text in column(pool, "output") for s in text.split(" .")[:-1]]


def text(world, rows=300, seed=0, entities=60, wrong_share=0.0, words=63):
    return microworld.prose(world, rows, seed, entities=entities, wrong_share=wrong_share, words=words)


def test_every_sentence_is_parsed_and_clean_text_is_true(world):
    facts = [microworld.parse(world, s) for s in sentences(text(world))]
    assert all(facts)
    assert all(microworld.is_true(world, fact) for some in facts for fact in some)
    assert {entity for some in facts for entity, _, _ in some} == set(world.entities[:60])
    assert {attribute for some in facts for _, attribute, _ in some} == {a for _, a in world.facts}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_wrong_values_is_as_asked(world, share):
    facts = [f for s in sentences(text(world, rows=400, wrong_share=share)) for f in microworld.parse(world, s)]
    wrong = 1 - sum(microworld.is_true(world, fact) for fact in facts) / len(facts)
    assert wrong == pytest.approx(share, abs=0.03)


def test_pieces_are_as_long_as_allowed_and_differ_by_seed(world):
    lengths = [len(t.split()) for t in column(text(world), "output")]
    assert max(lengths) <= 63
    assert sum(lengths) / len(lengths) > 50
    assert column(text(world), "output") == column(text(world), "output")
    assert column(text(world), "output") != column(text(world, seed=1), "output")
    with pytest.raises(UserError, match=r"data\.entities: 241"):
        text(world, entities=241)


def test_the_vocabulary_holds_all_of_it(world):
    words = {w for t in column(text(world, rows=2000, entities=240, wrong_share=0.5), "output") for w in t.split()}
    assert words <= set(microworld.vocabulary(world))


def test_probes_cover_each_fact_once(world):
    parts = {p: microworld.probes(world, p, 60) for p in ("validation", "test")}
    prompts = [i.instruction for some in parts.values() for i in some]
    assert len(prompts) == len(set(prompts)) == 60 * 8
    assert len(parts["validation"]) == 120
    for item in parts["test"]:
        (fact,) = microworld.parse(world, f"{item.instruction} {item.answer}")
        assert microworld.is_true(world, fact)


def test_what_is_no_sentence_is_not_parsed(world):
    one, other = world.entities[:2]
    good = f"the home of {one} is arden"
    assert microworld.parse(world, good)
    for bad in (
        "", one, f"{good} {other}", f"the home of nobody is {other}", f"the arden of {one} is home", f"{one} :",
        f"{one} : home arden , ", "nobody : home arden", f"the home of {one} is", good.replace("is", "has"),
    ):  # fmt: skip
        assert microworld.parse(world, bad) is None, bad
    assert microworld.parse(world, f"the home of {one} is red") == [(one, "home", "red")]
    assert not microworld.is_true(world, (one, "home", "red"))
