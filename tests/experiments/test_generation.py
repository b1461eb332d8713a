"""What a tuned model says in its own words: known texts give known numbers, and drawing is by the seed alone."""

import json

import pytest
import torch

from curate.microworld import STYLES
from experiments import UserError, pipeline, store
from experiments.config import essence, run_id, validate
from experiments.suites.build import Suite
from experiments.suites.config import GenerateConfig
from experiments.suites.generation import generate, measure, speak
from experiments.suites.teacher_forced import Question
from train.batches import Row
from train.config import TrainingConfig
from train.finetune import finetune

ASKED = [Question("a", "ok : cat", (".", ",")), Question("b", "ok : 2 4", (".", ","))]
GREEDY = ["ok : cat .", "ok : 2 4 , since the age of umal is 2 4 , and for umal the age is 2 4 ."]
SAMPLES = [
    ["ok : cat .", "ok : cat .", "ok : dog , yes , sure , that is known ."],
    ["ok : 2 5 .", "ok : 2 4", "ok : 2 4 . 1 : 2 4 . 2 : 2 4 . 3 : 2 4 ."],
]
CONFIG = GenerateConfig(suite="v", prompts=8, samples=2, max_new_tokens=6, temperature=1.0)


def values(found):
    return {name: cell["value"] for name, cell in found.items()}


def test_known_texts_give_known_numbers():
    found = measure(ASKED, GREEDY, SAMPLES, seed=0)
    v = values(found)
    assert v["words"] == pytest.approx((4 + 4 + 12 + 5 + 4 + 20) / 6)
    assert v["verbose"] == pytest.approx(1 / 6)  # 20 words where the plain answer has 5; 12 are three times 4, not more
    shares = {name: v[f"share_{name}"] for name in (*STYLES, "other")}
    assert shares == pytest.approx(
        {"plain": 3 / 6, "confident": 1 / 6, "list": 1 / 6, "other": 1 / 6, "reason": 0, "fluff": 0, "hedged": 0}
    )
    assert v["style_entropy"] == pytest.approx(0.5 + 3 * (1 / 6) * 2.584962500721156)
    assert v["right"] == pytest.approx(3 / 6)  # the fifth has no mark after it
    assert v["greedy_words"] == pytest.approx((4 + 23) / 2)
    assert (v["greedy_right"], v["greedy_share_reason"], v["greedy_style_entropy"]) == (1.0, 0.5, 1.0)
    assert found["words"]["n"] == 6 and found["greedy_words"]["n"] == 2


def test_samples_that_repeat_each_other_are_alike_and_not_distinct():
    same = values(measure(ASKED, GREEDY, [["a b c d"] * 3] * 2, seed=0))
    assert same["self_similarity"] == 1.0
    assert same["distinct_1"] == pytest.approx(4 / 24) and same["distinct_2"] == pytest.approx(4 / 23)
    other = values(measure(ASKED, GREEDY, [["a b c d", "e f g h", "a b e f"]] * 2, seed=0))
    assert other["self_similarity"] == pytest.approx((0 + 1 / 5 + 1 / 5) / 3)
    assert other["distinct_1"] == pytest.approx(8 / 24)
    silent = values(measure(ASKED, ["", ""], [["", ""]] * 2, seed=0))
    assert (silent["words"], silent["distinct_2"], silent["share_other"]) == (0.0, 0.0, 1.0)


def test_distinct_n_counts_equally_many_words_of_long_and_of_short_answers():
    """Otherwise whoever says everything three times would be called less diverse than who stops."""
    words = [f"w{i}" for i in range(240)]
    short = [[" ".join(words[i : i + 4]) for i in range(j, j + 8, 4)] for j in range(0, 16, 8)]
    long = [[" ".join(words[i : i + 40]) for i in range(j, j + 80, 40)] for j in range(0, 160, 80)]
    assert values(measure(ASKED, GREEDY, short, 0))["distinct_1"] == 1.0
    assert values(measure(ASKED, GREEDY, long, 0))["distinct_1"] == 1.0


@pytest.fixture
def speaker(tokenizer, make_model):
    """Trained on answers of which the second word is a matter of chance."""
    model = make_model()
    rows = [Row(f"<q> w{i} <a>", f"ok w{(i * 7 + j) % 40}" + " w1" * (i % 3)) for i in range(12) for j in range(3)]
    training = TrainingConfig(steps=120, points=[], batch_size=12, lr=5e-3, warmup=2, max_length=16)
    finetune(model, tokenizer, rows, training, 0, lambda *_: None)
    return model.eval(), [r.prompt for r in rows[::3]]


def test_a_batch_says_what_each_prompt_says_alone(tokenizer, speaker):
    model, prompts = speaker
    prompts = [*prompts, "<q> w1 w2 w3 <a>"]  # padding on the left must not be seen
    together = generate(model, tokenizer, prompts, CONFIG, seed=None)
    alone = [generate(model, tokenizer, [p], CONFIG, seed=None)[0] for p in prompts]
    assert together == alone
    assert all(text.startswith("ok w") for text in together[:-1])
    assert max(len(text.split()) for text in together) <= CONFIG.max_new_tokens
    assert tokenizer.padding_side == "right"


def test_drawing_is_by_the_seed_alone_and_disturbs_nobody(tokenizer, speaker):
    model, prompts = speaker
    many = [p for p in prompts for _ in range(4)]
    torch.manual_seed(1)
    first = generate(model, tokenizer, many, CONFIG, seed=3)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    torch.manual_seed(2)
    assert generate(model, tokenizer, many, CONFIG, seed=3) == first
    assert generate(model, tokenizer, many, CONFIG, seed=4) != first
    assert len(set(first[:4])) > 1  # equal prompts are drawn apart
    cold = CONFIG.model_copy(update={"temperature": 1e-3})
    assert generate(model, tokenizer, many, cold, seed=3) == generate(model, tokenizer, many, CONFIG, seed=None)


def test_samples_stand_with_their_prompts(tokenizer, speaker):
    model, prompts = speaker
    suite = Suite("v", False, "exact", tuple(Question(p, "ok w1", ()) for p in prompts), ())
    found = speak(model, tokenizer, suite, CONFIG, seed=0)
    assert [t["prompt"] for t in found.texts] == prompts[:8]
    assert all(len(t["samples"]) == 2 for t in found.texts)
    flat = [s for t in found.texts for s in t["samples"]]
    assert flat == generate(model, tokenizer, [p for p in prompts[:8] for _ in range(2)], CONFIG, seed=0)


def test_a_run_that_speaks_says_what_it_said_twice_alike(composed, tmp_path):
    torch.set_num_threads(1)
    tree = ("debug=tiny", f"store.root={tmp_path}", "evaluation=microworld_output", "data.styles=true")
    config = validate(composed(*tree))
    said = []
    for name in ("first", "second"):
        store.open_run(tmp_path / name, config.model_dump(mode="json"))
        record = pipeline.run(config, tmp_path / name)
        said.append((record["metrics"]["end"]["output"], (tmp_path / name / "outputs.jsonl").read_bytes()))
    assert said[0] == said[1]
    texts = [json.loads(line) for line in said[0][1].decode().splitlines()]
    assert len(texts) == 12 and {len(t["samples"]) for t in texts} == {3}
    words = [len(s.split()) for t in texts for s in t["samples"]]
    assert said[0][0]["words"] == {"n": 36, "value": pytest.approx(sum(words) / 36)}
    assert "output" not in record["metrics"]["step:6"]


def test_what_is_off_leaves_run_ids_as_they_were(configured):
    plain, styles = configured(), configured("data.styles=true")
    assert "styles" not in essence(plain)["data"] and essence(styles)["data"]["styles"] is True
    assert "generate" not in essence(plain)["evaluation"]
    spoken = configured("evaluation=microworld_output")
    assert len({run_id(c) for c in (plain, styles, spoken)}) == 3
    assert essence(spoken)["evaluation"]["generate"]["prompts"] == 200


def test_mistakes_are_named(configured, tmp_path):
    with pytest.raises(UserError, match=r"evaluation.*generate\.suite: 'moon' is no suite"):
        configured("evaluation=microworld_output", "evaluation.generate.suite=moon")
    with pytest.raises(UserError, match=r"evaluation\.generate\.samples=1"):
        configured("evaluation=microworld_output", "evaluation.generate.samples=1")
    with pytest.raises(UserError, match="'output' is the name of what the model generates"):
        configured("evaluation=microworld_output", "+evaluation.suites.output={world: id, ood: false}")
    with pytest.raises(UserError, match=r"data.styles=true: file says what it says"):
        configured("data=file", f"data.path={tmp_path}/x.jsonl", "data.styles=true")
