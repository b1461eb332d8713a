"""The embedded world: verifiable, deterministic, graded, and without a leak between its parts."""

import collections
import itertools
import random

import pytest

from curate import UserError, microworld
from curate.example import pool_hash
from curate.microworld import text, wording
from curate.microworld import world as w

WORLD = microworld.build_world(0)


def pool(seed=0, rows=4096):
    return microworld.build_pool(WORLD, rows, seed)


def suites(items=10_000):
    return {name: microworld.build_suite(WORLD, name, items) for name in microworld.SUITES}


def sentences(n, seed="0"):
    return list(itertools.islice(microworld.stream(WORLD, random.Random(seed)), n))


def test_every_fact_has_a_value_of_its_closed_set():
    assert len(WORLD.facts) == 240 * 8
    for (entity, attribute), value in WORLD.facts.items():
        assert value in w.values(WORLD, attribute) and value != entity


def test_skill_answers_are_right():
    for operand, value, wrong in w.skill_cases("digit_sum"):
        assert sum(map(int, operand.split())) == int(value.replace(" ", "")) != int(wrong.replace(" ", ""))
    for operand, value, _ in w.skill_cases("bigger"):
        a, b = (int(x.replace(" ", "")) for x in operand.split(" or "))
        assert int(value.replace(" ", "")) == max(a, b)
    assert {o: v for o, v, _ in w.skill_cases("parity")}["4 7"] == "odd"
    assert {o: v for o, v, _ in w.skill_cases("next")}["w x y"] == "z"


def test_another_seed_is_another_world():
    other = microworld.build_world(1)
    assert other.facts != WORLD.facts and set(other.entities) != set(WORLD.entities)


def test_a_fifth_of_the_facts_is_never_stated_and_exposure_is_graded():
    never = [k for k, weight in WORLD.exposure.items() if weight == 0]
    assert len(never) == round(0.2 * len(WORLD.facts))
    stated = collections.Counter()
    value_of = WORLD.facts
    read = sentences(30_000)
    for sentence in read:
        words = set(sentence.split())
        for entity in words & set(WORLD.entities):
            for attribute in w.SINGLE:
                if words & set(w.synonyms(attribute)) and set(value_of[entity, attribute].split()) <= words:
                    stated[entity, attribute] += 1
    bands = collections.defaultdict(list)
    for probe, key in zip(microworld.cloze(WORLD), WORLD.facts, strict=True):
        bands[probe.band].append(stated[key])
    mean = {band: sum(n) / len(n) for band, n in bands.items()}
    assert mean["top"] > 2 * mean["middle"] and mean["middle"] > 1.3 * mean["rare"] > 0, mean
    named = [(e, n, value_of[e, a]) for e, a in never for n in w.synonyms(a)]
    assert not {f.format(a=n, e=e, v=v) for e, n, v in named for f in wording.STATEMENTS} & set(read)
    questions = [q for group in wording.SINGLE_QUESTIONS.values() for q in group]
    replies = {f.format(q=q.format(a=n, e=e), v=v) for e, n, v in named for q in questions for f in wording.FORUM}
    assert not replies & set(read)
    told = {(e, clause) for e, _, clauses in (s.partition(" : ") for s in read) for clause in clauses[:-2].split(" , ")}
    assert len(told) > 3000
    assert not told & {(e, f"{n} {v}") for e, n, v in named}


def test_vocabulary_is_closed_over_everything_the_world_says():
    vocabulary = set(microworld.vocabulary(WORLD))
    said = sentences(3_000)
    for row in pool():
        said += [row["instruction"], row["output"], row["near_miss"]]
        said += [p.replace("{instruction}", row["instruction"]) for p in microworld.PARAPHRASES]
    for pair in microworld.preference_pairs(WORLD, 0):
        said += [pair["instruction"], pair["chosen"], pair["rejected"]]
    for items in suites().values():
        said += [f"{i.instruction} {i.answer} {' '.join(i.stop)}" for i in items]
    assert {word for s in said for word in s.split()} <= vocabulary


def test_every_word_a_model_is_asked_with_occurs_in_its_text():
    read = {word for s in sentences(60_000) for word in s.split()}
    asked = {word for items in suites().values() for i in items for word in f"{i.instruction} {i.answer}".split()}
    assert asked <= read


def test_pool_is_exact_unique_and_in_its_shares():
    rows = pool()
    kinds = collections.Counter(rows["category"])
    assert len(rows) == 4096 == len(set(rows["instruction"]))
    assert (kinds["single"], kinds["pair"]) == (2990, 614)
    assert all(r["near_miss"] != r["output"] and len(r["near_miss"]) for r in rows)
    assert pool()["id"][:] == rows["id"][:]
    assert set(pool(seed=1)["instruction"]) != set(rows["instruction"])


def test_too_large_a_pool_names_the_mend():
    with pytest.raises(UserError, match=r"data\.rows: 50000 .* at most \d+"):
        pool(rows=50_000)


def test_nothing_leaks():
    """Prompts, entities, wordings and pairs of each suite are where no part that trains has them."""
    asked = suites()
    instructions = {name: {i.instruction for i in items} for name, items in asked.items()}
    trained = set().union(*(set(pool(seed)["instruction"]) for seed in range(4)))
    for facts in ("known", "rare", "unknown"):
        trained |= set(microworld.build_pool(WORLD, 1000, 0, facts)["instruction"])
    preferred = {p["instruction"] for p in microworld.preference_pairs(WORLD, 0)}
    assert not trained & preferred
    for name, prompts in instructions.items():
        assert not prompts & trained, name
        assert not prompts & preferred, name
    for a, b in itertools.combinations([name for name in instructions if name not in microworld.FACTS], 2):
        assert not instructions[a] & instructions[b], (a, b)
    for a, b in itertools.combinations(microworld.FACTS, 2):
        assert not instructions[a] & instructions[b], (a, b)
    entities = {s: set(WORLD.of(s)) for s in w.SPLITS}
    assert sum(map(len, entities.values())) == len(set.union(*entities.values())) == 240
    words = {name: {x for p in prompts for x in p.split()} for name, prompts in instructions.items()}
    for name in ("entity", "composition"):
        assert words[name] & set(WORLD.entities) <= entities["test"], name
    assert words["validation"] & set(WORLD.entities) <= entities["validation"]
    assert {x for p in trained for x in p.split()} & set(WORLD.entities) <= entities["sft"]
    assert {x for p in preferred for x in p.split()} & set(WORLD.entities) <= entities["reward"]
    held_out = {(e, a) for e, attributes in WORLD.held_out.items() for a in attributes}
    for prompt in trained:
        for entity in set(prompt.split()) & set(WORLD.entities):
            names = {a for a in w.SINGLE if set(w.synonyms(a)) & set(prompt.split())}
            assert not {(entity, a) for a in names} & held_out, prompt


def test_the_bases_text_answers_no_question_of_a_suite():
    told = set(sentences(300_000))
    for name, items in suites(300).items():
        for item in items:
            replies = [form.format(q=item.instruction, v=item.answer.removeprefix("ok : ")) for form in wording.FORUM]
            assert told.isdisjoint(replies), (name, item)


def test_answered_questions_of_the_text_are_about_entities_of_training_only():
    ood = set(WORLD.of("test")) | set(WORLD.of("validation"))
    answered = [s for s in sentences(40_000) if " ? reply " in s or " . reply " in s or " sure , " in s]
    assert len(answered) > 1000
    questions = [s.replace(" sure , ", " reply ").split(" reply ")[0] for s in answered]
    assert not [q for q in questions if set(q.split()) & ood]
    held = {frozenset(p) for role in ("validation", "test") for p in WORLD.pairs[role]}
    for s in answered:
        if " and the " in s:
            first, second = s.split(" the ")[1].split()[0], s.split(" and the ")[1].split()[0]
            assert frozenset((first, second)) not in held


def test_suites_ask_only_what_pretraining_states():
    for item in microworld.build_suite(WORLD, "entity", 10_000):
        entity = (set(item.instruction.split()) & set(WORLD.entities)).pop()
        assert WORLD.shown(entity, item.category)
        assert item.answer == f"ok : {WORLD.facts[entity, item.category]}"


OF_NAME = {name: attribute for attribute in w.SINGLE for name in w.synonyms(attribute)}


def fact_of(prompt):
    entity = [word for word in prompt.split() if word in WORLD.split]
    attribute = {OF_NAME[word] for word in prompt.split() if word in OF_NAME}
    return (*entity, *attribute) if len(attribute) == 1 else None


def test_questions_of_a_band_are_about_its_facts():
    band = microworld.bands(WORLD)
    assert collections.Counter(band.values()) == {"top": 307, "middle": 923, "rare": 306, "never": 384}
    assert min(WORLD.exposure[f] for f in band if band[f] == "top") > max(
        WORLD.exposure[f] for f in band if band[f] == "middle"
    )
    assert [p.band for p in microworld.cloze(WORLD)] == [band[fact] for fact in WORLD.facts]
    for name in microworld.FACTS:
        items = microworld.build_suite(WORLD, name, 10_000)
        facts = {fact_of(i.instruction) for i in items}
        assert len(facts) > 80 and {band[f] for f in facts} == {name.removeprefix("facts_")}
        assert all(i.answer == f"ok : {WORLD.facts[fact_of(i.instruction)]}" for i in items)


@pytest.mark.parametrize(("facts", "bands"), [("known", {"top", "middle"}), ("rare", {"rare"}), ("unknown", {"never"})])
def test_a_pool_may_keep_to_what_the_base_knows_or_does_not(facts, bands):
    band = microworld.bands(WORLD)
    rows = microworld.build_pool(WORLD, 1000, 0, facts)
    kinds = collections.Counter(rows["category"])
    assert len(set(rows["instruction"])) == 1000 and kinds["single"] == 880 and kinds["pair"] == 0
    asked = {fact_of(row["instruction"]) for row in rows if row["category"] == "single"}
    assert None not in asked and {band[fact] for fact in asked} == bands
    with pytest.raises(UserError, match=r"data\.rows: 4096000 .* at most \d+"):
        microworld.build_pool(WORLD, 4096000, 0, facts)


def test_all_facts_is_the_pool_as_it_was():
    assert pool()["id"][:] == microworld.build_pool(WORLD, 4096, 0, "all")["id"][:]
    assert pool_hash(pool()) == "6a4b41f9fe296f7b"


def test_majority_baselines_are_low():
    for name, items in suites(300).items():
        assert microworld.majority_baseline(WORLD, items) < 0.3, name


def test_text_goes_on_from_its_position():
    rng = random.Random("7")
    stream = microworld.stream(WORLD, rng)
    list(itertools.islice(stream, 100))
    state = rng.getstate()
    wanted = list(itertools.islice(stream, 50))
    resumed = random.Random()
    resumed.setstate(state)
    assert list(itertools.islice(microworld.stream(WORLD, resumed), 50)) == wanted


def test_biographies_never_repeat_a_fact():
    for s in sentences(3_000):
        if " : " in s and s.split()[0] in WORLD.entities:
            clauses = s.split(" : ")[1].removesuffix(" .").split(" , ")
            assert 1 <= len({c.split()[0] for c in clauses}) == len(clauses) <= text.BIOGRAPHY_FACTS
