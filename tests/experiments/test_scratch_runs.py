"""Pre-training from scratch through the pipeline: what is evaluated, recorded, and judged."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from curate import UserError, microworld
from curate.example import make_pool
from experiments import UserError as ConfigError
from experiments import asked, claims, prepare
from experiments import subset as subsets
from experiments import table as tables
from experiments.claim_files import Claim
from experiments.config import essence, run_id, validate
from experiments.suites import text
from experiments.suites.build import Suite
from experiments.suites.teacher_forced import Question
from tests.experiments.runs import run
from tests.stories import stories, write_stories
from train.models import load_causal_lm

WORLD = ["data=world_text", "model=scratch", "training=world_text", "evaluation=world_text"]


@pytest.fixture(scope="module")
def story_file(root):
    return write_stories(root / "stories.txt", stories(400))


@pytest.fixture
def of_stories(make, story_file):
    def config(*overrides):
        names = ["data=stories", "model=scratch", "training=stories", "evaluation=stories"]
        return make(*names, f"data.path={story_file}", *overrides)

    return config


# --- runs -----------------------------------------------------------------------------------------------------------


def test_stories_are_learnt_and_read_token_by_token(of_stories):
    record, folder = run(of_stories("training.steps=60", "training.lr=0.01", "data.rows=null"))
    before, end = record["metrics"]["step:0"]["stories"], record["metrics"]["end"]["stories"]
    assert set(end) == {"accuracy", "nll", "perplexity"} == set(record["metrics"]["end"]["ood"])
    assert end["perplexity"]["value"] == pytest.approx(np.exp(end["nll"]["value"]))
    assert before["perplexity"]["value"] == pytest.approx(300, rel=0.1)  # the size of the vocabulary
    assert end["perplexity"]["value"] < 60
    assert before["accuracy"]["value"] < 0.1 < end["accuracy"]["value"]
    items = pd.DataFrame(pq.read_table(folder / "items.parquet").to_pylist())
    mine = items[(items["point"] == "end") & (items["suite"] == "stories")]
    assert mine["hits"].sum() / mine["tokens"].sum() == pytest.approx(end["accuracy"]["value"])
    assert "tokens_to_probe" not in record["cost"]


def test_levels_of_duplication_share_weights_and_tokeniser_and_pairs_do_not(of_stories):
    levels = [of_stories("arm=duplicated", f"duplication.rate={rate}") for rate in (0.25, 0.75)]
    assert len({prepare.base_folder(c) for c in [*levels, of_stories()]}) == 1
    assert prepare.base_folder(of_stories("seed.pair=1")) != prepare.base_folder(of_stories())
    assert run_id(of_stories("seed.pair=1")) != run_id(of_stories())
    assert validate(of_stories("seed.pair=1").model_dump()).seed.base == 1
    tokenizers = [prepare.build_base(of_stories(f"seed.pair={pair}")) / "tokenizer.json" for pair in (0, 1)]
    assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()


def test_copies_fill_the_slots_of_stories(of_stories):
    subset = subsets.curate_subset(of_stories("arm=duplicated", "duplication.rate=0.25"))
    assert (subset.facts["rows"], subset.facts["unique_rows"]) == (200, 150)
    assert {row.prompt for row in subsets.training_rows(of_stories(), subset.rows)} == {""}


def test_a_tested_story_among_the_rows_fails_the_run(of_stories):
    config = of_stories()
    suites = asked.suites_of(config)
    tested = next(s for s in suites if s.name == "stories").questions[0].answer
    asked.check_overlap(config, subsets.clean_pool(config)[0], suites)
    leaked = make_pool([{"instruction": "", "output": tested.upper()}], "test")
    with pytest.raises(UserError, match=r"evaluation\.suites\.stories: 1 of its prompts"):
        asked.check_overlap(config, leaked, suites)


def test_the_worlds_text_is_probed_and_written(make):
    record, _ = run(make(*WORLD, "evaluation.probe.at_least=0.0"))
    end = record["metrics"]["end"]
    assert set(end["facts"]) == {"em", "em_format_free", "nll", "entropy", "entropy_first", "confident"}
    assert set(end["writing"]) == {"grammatical", "consistent"}
    assert record["metrics"]["step:0"]["facts"]["majority"]["value"] > 0
    assert (record["cost"]["tokens_to_probe"], record["cost"]["probe_censored"]) == (0.0, 0.0)
    never, _ = run(make(*WORLD))
    assert never["cost"]["tokens_to_probe"] == never["cost"]["tokens_seen"]
    assert never["cost"]["probe_censored"] == 1.0


# --- what a model writes --------------------------------------------------------------------------------------------


class Reciter(torch.nn.Module):
    """Writes one text by heart, whatever it is given."""

    def __init__(self, ids, size):
        super().__init__()
        self.ids, self.size = ids, size
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, past_key_values, use_cache):
        at = past_key_values or 0
        logits = torch.full((*input_ids.shape, self.size), -1e9)
        logits[..., self.ids[at % len(self.ids)]] = 0.0
        return type("Out", (), {"logits": logits, "past_key_values": at + 1})


def test_writing_is_judged_by_the_worlds_parser_and_its_facts(make):
    world = microworld.build_world(0)
    entity = world.entities[0]
    home, pet = world.facts[entity, "home"], world.facts[entity, "pet"]
    other = next(v for v in ("red", "blue") if v != world.facts[entity, "colour"])
    said = f"has {home} as town . the pet of {entity} is {pet} . {entity} has {other} as tint . the of is . the pet"
    _, tokenizer = load_causal_lm(prepare.build_base(make(*WORLD)))
    ids = [*tokenizer(said)["input_ids"], tokenizer.eos_token_id]
    suite = Suite("writing", False, "writing", (Question(entity, ""),) * 3, (), world=0)
    found, rows = text.measure(Reciter(ids, len(tokenizer)), tokenizer, suite, None, 3, 64)
    assert found["grammatical"] == {"value": 3 / 4, "n": 12}
    assert found["consistent"] == {"value": 2 / 3, "n": 9}
    assert rows[0] == {"suite": "writing", "item": 0, "sentences": 4.0, "parsed": 3.0, "facts": 3.0, "true": 2.0}


def test_writing_is_drawn_from_its_seed(make):
    model, tokenizer = load_causal_lm(prepare.build_base(make(*WORLD)))
    torch.manual_seed(1)
    one = text.write(model, tokenizer, ["the", "for"], 12, seed=0)
    torch.manual_seed(2)
    assert one == text.write(model, tokenizer, ["the", "for"], 12, seed=0)
    assert one != text.write(model, tokenizer, ["the", "for"], 12, seed=1)
    assert [t.split()[0] for t in one] == ["the", "for"]


# --- identity -------------------------------------------------------------------------------------------------------


def test_keys_that_came_later_are_no_part_of_what_does_not_use_them(make):
    tree = json.dumps(essence(make()))
    for name in ('"scratch"', '"probe"', '"entities"', '"wrong_share"', '"text"'):
        assert name not in tree
    told = json.dumps(essence(make(*WORLD)))
    assert all(name in told for name in ('"scratch"', '"probe"', '"entities"', '"wrong_share"', '"text"'))
    assert run_id(make(*WORLD, "data.wrong_share=0.1")) != run_id(make(*WORLD))


@pytest.mark.parametrize(("overrides", "said"), [
    (["data=stories", "model=scratch"], r"path=null.*data\.path=FILE.*hub:roneneldan/TinyStories"),
    (["model=scratch"], r"model\.kind=scratch.*data=stories"),
    (["data=world_text", "data.wrong_share=null"], "wrong_share=null"),
    (["+data.wrong_share=0.1"], "only data=world_text"),
    ([*WORLD, "evaluation.probe.suite=no"], "probe.suite"),
    ([*WORLD, "+evaluation.suites.facts.world=id"], "exactly one"),
])  # fmt: skip
def test_what_does_not_go_together_is_one_line(make, overrides, said):
    with pytest.raises(ConfigError, match=said) as error:
        make(*overrides)
    assert "\n" not in str(error.value)


def test_a_suite_of_another_kind_of_text_is_refused(of_stories):
    config = of_stories("evaluation=world_text")
    with pytest.raises(UserError, match=r"evaluation\.suites\.validation\.text: 'probe_validation'"):
        asked.suites_of(config)


# --- claims about runs that may still be on their plateau -------------------------------------------------------------


def judged(tokens, censored, **keys):
    """The verdict on four pairs of a small and a large run with these tokens to the probe and these scores."""
    best = tables.Best("facts", "em", "max")
    rows = []
    for pair in range(4):
        for arm, seen, never, em in (("small", tokens[0], censored[0], 0.97), ("large", tokens[1], censored[1], 0.96)):
            jitter = 0.001 * ((pair * 7 + (arm == "large") * 3) % 5)
            figures = [("run", "done", 1.0), ("facts", "em", em + jitter)]
            figures += [("cost", "tokens_to_probe", seen * (1 + jitter)), ("cost", "probe_censored", float(never))]
            for suite, metric, value in figures:
                seeds = dict.fromkeys(("seed_pair", "seed_base", "seed_data", "seed_select", "seed_train"), pair)
                cell = {"run_id": f"{arm}{pair}", "arm": arm, **seeds, "point": "end", "suite": suite}
                rows.append({**cell, "metric": metric, "value": value, "n": 100, "tokens": 1000})
    definition = {
        "id": "x", "title": "x", "source": "x", "quoted": {"figure": "x", "at": "x"}, "reading": "x", "point": "end",
        "treatment": {"arm": "small"}, "control": {"arm": "large"}, "margin": 0.05, **keys,
    }  # fmt: skip
    (entry,) = claims.judge([Claim(**definition)], pd.DataFrame(rows), best=best, experiment="x")
    return entry


def test_sizes_are_not_compared_while_a_run_is_on_its_plateau():
    same = {"kind": "noninferior", "metric": "facts/em"}
    assert judged((500, 800), (False, False), **same, settled=True)["verdict"] == "reproduced"
    for censored in ((False, True), (True, False)):
        entry = judged((500, 1000), censored, **same, settled=True)
        assert entry["verdict"] == "inconclusive"
        assert "had not passed its probe" in entry["note"]
        assert entry["ci_low"] is entry["ci_high"] is None
        assert judged((500, 1000), censored, **same)["verdict"] == "reproduced"
    assert judged((500, 800), (False, False), **same)["definition"]["settled"] is False


def test_tokens_of_runs_that_never_got_there_are_bounds():
    fewer = {"kind": "less", "metric": "cost/tokens_to_probe", "scale": "log_ratio"}
    assert judged((500, 800), (False, False), **fewer)["verdict"] == "reproduced"
    entry = judged((500, 1000), (False, True), **fewer)
    assert (entry["verdict"], entry["ci_low"]) == ("reproduced", None)
    assert "its tokens are at least" in entry["note"]
    entry = judged((1000, 1000), (True, True), **fewer)
    assert (entry["verdict"], entry["ci_low"], entry["ci_high"]) == ("inconclusive", None, None)


def test_tokens_to_the_probe_are_interpolated():
    curve = [(0.0, 0.0), (100.0, 0.5), (200.0, 1.0)]
    assert text.tokens_to_probe(curve, 0.75) == {"tokens_to_probe": 150.0, "probe_censored": 0.0}
    assert text.tokens_to_probe(curve[:2], 0.75) == {"tokens_to_probe": 100.0, "probe_censored": 1.0}
