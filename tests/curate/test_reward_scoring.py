"""Reward model scores: what is kept, equal to pair by pair, and clear errors."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from curate import UserError, filter_sft_data
from curate.config import ScorerConfig
from curate.example import make_pool
from curate.scoring import Models, cache, reward_model, score
from curate.scoring.likelihood import mean_log_likelihood
from curate.scoring.reward_model import score_folder, score_model, score_pairs

KNOWN_EXAMPLE = (
    (
        "explain backpropagation .",
        "the error flows back through the layers by the chain rule , and each weight is adjusted to lower the loss",
    ),
    ("write python that reverses a string .", "reverse = lambda s : s [ : : -1 ]"),
    ("asdfasdfasdf", "i'm sorry , but i don't understand your question . can i help you ?"),
)
MIXED = [
    (prompt, " ".join(reply.split()[: 1 + at % 9]))
    for at in range(12)
    for prompt, reply in (
        *KNOWN_EXAMPLE,
        ("", "plants turn light into sugar"),
        ("what is the water cycle ? " * at, "rain"),
    )
]


def by_the_book(model: Any, tokenizer: Any, prompt: str, response: str, template: str) -> float:
    """One pair at a time, as a model card shows it."""
    if template == "chapter":
        text = f"<|prompter|>{prompt}<|endoftext|><|assistant|>{response}<|endoftext|>"
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
    else:
        inputs = tokenizer(prompt, response, return_tensors="pt", truncation=True, max_length=512)
    if not isinstance(model, BertForSequenceClassification):
        inputs.pop("token_type_ids", None)
    with torch.no_grad():
        return model(**inputs).logits[0, 0].item()


@pytest.fixture
def bert(reward_model_folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(reward_model_folder).eval()


def test_the_known_example(reward_model_folder: Path) -> None:
    prompts, responses = zip(*KNOWN_EXAMPLE, strict=True)
    kept = filter_sft_data(list(prompts), list(responses), str(reward_model_folder))
    assert [row["prompt"] for row in kept] == list(prompts[:2])
    assert [row["response"] for row in kept] == list(responses[:2])
    assert all(list(row) == ["prompt", "response", "score"] and row["score"] >= 1.5 for row in kept)
    everything = filter_sft_data(list(prompts), list(responses), str(reward_model_folder), threshold=-99.0)
    assert everything[2]["score"] < 0


@pytest.mark.hub
def test_the_known_example_on_the_real_model() -> None:
    prompts = ["Explain backpropagation.", "Write a Python one-liner that reverses a string.", "asdfasdfasdf"]
    responses = [
        "Backpropagation computes how the loss changes with every weight of a neural network. It applies the chain "
        "rule from the output layer back to the input, reusing each layer's result, so that one backward pass gives "
        "all gradients; an optimizer then changes the weights a little against them.",
        "`reversed_string = text[::-1]`: a slice with step -1 walks through the string backwards.",
        "I'm sorry, I don't understand. Please rephrase your question.",
    ]
    for template in ("chapter", "pair"):
        scored = filter_sft_data(prompts, responses, threshold=float("-inf"), template=template)
        print(template, [row["score"] for row in scored])
        kept = filter_sft_data(prompts, responses, template=template)
        assert [row["prompt"] for row in kept] == prompts[:2], template


def test_the_threshold_is_compared_before_rounding(reward_model_folder: Path, bert: Any, tokenizer: Any) -> None:
    prompt, response = KNOWN_EXAMPLE[0]
    exact = by_the_book(bert, tokenizer, prompt, response, "chapter")
    assert filter_sft_data([prompt], [response], str(reward_model_folder), exact - 2e-5)[0]["score"] == round(exact, 3)
    assert filter_sft_data([prompt], [response], str(reward_model_folder), exact + 2e-5) == []


def test_order_and_duplicates_are_kept(reward_model_folder: Path) -> None:
    pairs = [*KNOWN_EXAMPLE, KNOWN_EXAMPLE[0], KNOWN_EXAMPLE[1], KNOWN_EXAMPLE[0]]
    prompts, responses = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    seen: list[tuple[int, int]] = []
    kept = filter_sft_data(
        prompts, responses, str(reward_model_folder), -99.0, token_budget=1, progress=lambda *now: seen.append(now)
    )
    assert [(row["prompt"], row["response"]) for row in kept] == pairs
    assert seen == [(1, 3), (2, 3), (3, 3)]  # equal pairs are scored once


@pytest.mark.parametrize("template", ["chapter", "pair"])
@pytest.mark.parametrize("budget", [1, 40, 512, 100_000])
def test_equal_to_pair_by_pair(bert: Any, tokenizer: Any, template: str, budget: int) -> None:
    expected = [by_the_book(bert, tokenizer, *pair, template) for pair in MIXED]
    assert np.std(expected) > 1
    prompts, responses = zip(*MIXED, strict=True)
    found = score_pairs(bert, tokenizer, prompts, responses, template=template, token_budget=budget)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_templates_differ(bert: Any, tokenizer: Any) -> None:
    prompts, responses = zip(*MIXED, strict=True)
    chapter = score_pairs(bert, tokenizer, prompts, responses, template="chapter")
    assert np.abs(chapter - score_pairs(bert, tokenizer, prompts, responses, template="pair")).max() > 0.1


def test_the_models_own_chat_template(reward_model_folder: Path, bert: Any, tokenizer: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(reward_model_folder, folder)
    prompts, responses = (list(texts) for texts in zip(*MIXED, strict=True))
    with pytest.raises(UserError, match="template=chat: the model has no chat template of its own; choose chapter"):
        filter_sft_data(prompts, responses, str(folder), template="chat")
    own = AutoTokenizer.from_pretrained(folder)
    own.chat_template = (
        "{% for turn in messages %}{% if turn.role == 'user' %}<|prompter|>{% else %}<|assistant|>{% endif %}"
        " {{ turn.content }} <|endoftext|>{% endfor %}"
    )
    end = ("<|endoftext|>", own.convert_tokens_to_ids("<|endoftext|>"))
    own.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{end[0]} $A {end[0]}", special_tokens=[end]
    )
    own.save_pretrained(folder)
    assert len(AutoTokenizer.from_pretrained(folder)("explain")["input_ids"]) == 3
    found = filter_sft_data(prompts, responses, str(folder), -99.0, template="chat")
    # the template writes the same tokens as the chapter; the tokenizer's own special tokens are not added to them
    expected = [by_the_book(bert, tokenizer, *pair, "chapter") for pair in MIXED]
    np.testing.assert_allclose([row["score"] for row in found], expected, atol=5.1e-4)  # rounded to 3 places


def test_what_makes_it_fast_is_set_up_once_for_all_portions(
    reward_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depths: list[int] = []
    open_now = 0

    @contextmanager
    def counted(model: Any) -> Iterator[None]:
        nonlocal open_now
        depths.append(open_now)
        open_now += 1
        yield
        open_now -= 1

    monkeypatch.setattr(cache, "_PORTION", 2)
    monkeypatch.setattr(reward_model, "onednn_linears", counted)
    filter_sft_data(["a b", "c d", "e f", "g h", "i j"], ["b", "d", "f", "h", "j"], str(reward_model_folder))
    assert (depths.count(0), depths.count(1), open_now) == (1, 3, 0)


def test_another_dtype_or_template_is_another_score(reward_model_folder: Path, tmp_path: Path) -> None:
    name = str(reward_model_folder)
    exact = score_model(name, POOL, cache=tmp_path)
    rounded = score_model(name, POOL, dtype="bfloat16", cache=tmp_path)
    assert rounded.computed == exact.computed > 0
    assert 0 < np.abs(rounded.values - exact.values).max() < 0.1 * np.std(exact.values)
    assert score_model(name, POOL, template="pair", cache=tmp_path).computed == exact.computed
    assert score_model(name, POOL, dtype="bfloat16", cache=tmp_path).computed == 0
    config = ScorerConfig(kind="reward_model", model=name, dtype="bfloat16")
    assert score(POOL, config, seed=0, cache=tmp_path).values.tolist() == rounded.values.tolist()


def test_texts_are_truncated_at_512_tokens(bert: Any, tokenizer: Any) -> None:
    long = "prices rise " * 1000
    expected = by_the_book(bert, tokenizer, "what is inflation ?", long, "chapter")
    found = score_pairs(bert, tokenizer, ["what is inflation ?"], [long], template="chapter")
    np.testing.assert_allclose(found, [expected], atol=1e-5)


@pytest.mark.parametrize("pad", ["[PAD]", "<|endoftext|>", None])
def test_decoders_with_any_padding_token(tokenizer: Any, pad: str | None) -> None:
    """A decoder scores its last token that is not padding; the end token may serve as padding, or there is none."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=1,
        pad_token_id=None if pad is None else tokenizer.convert_tokens_to_ids(pad),
    )
    model = LlamaForSequenceClassification(config).eval()
    prompts, responses = zip(*MIXED, strict=True)
    expected = [by_the_book(model, tokenizer, *pair, "chapter") for pair in MIXED]
    np.testing.assert_allclose(
        score_pairs(model, tokenizer, prompts, responses, template="chapter"), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("prompts", "responses", "options", "message"),
    [
        (["a"], [], {}, "1 prompts but 0 responses: give one response for each prompt"),
        (["a", 3], ["b", "c"], {}, r"prompts\[1\] is of type int"),
        (["a"], [None], {}, r"responses\[0\] is of type NoneType"),
        ("a", "b", {}, "prompts is of type str: give a list of strings"),
        (["a"], ["b"], {"template": "talk"}, "template='talk': choose one of chapter, pair, chat"),
        (["a"], ["b"], {"model_id": "/no/such/folder"}, "model /no/such/folder: cannot be loaded"),
    ],
)
def test_mistakes(prompts: Any, responses: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        filter_sft_data(prompts, responses, **options)
    assert "\n" not in str(error.value)


def test_empty_lists_need_no_model() -> None:
    assert filter_sft_data([], [], "/no/such/folder") == []


def test_models_that_are_no_reward_model(tmp_path: Path, tokenizer: Any) -> None:
    small: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    two = BertConfig(**small, intermediate_size=8, num_labels=2)
    BertForSequenceClassification(two).save_pretrained(tmp_path / "two")
    BertModel(BertConfig(**small, intermediate_size=8)).save_pretrained(tmp_path / "bare")
    for name, message in (
        ("two", "has 2 outputs"),
        ("bare", "no trained weights for classifier.bias, classifier.weight"),
    ):
        tokenizer.save_pretrained(tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        if name == "bare":  # a base model that merely says it has one output
            (tmp_path / name / "config.json").write_text(json.dumps({**config, "id2label": {"0": "LABEL_0"}}))
        with pytest.raises(UserError, match=message):
            filter_sft_data(["a"], ["b"], str(tmp_path / name))


def test_damaged_weights(tmp_path: Path, reward_model_folder: Path) -> None:
    shutil.copytree(reward_model_folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"not what it was")
    with pytest.raises(UserError, match="cannot be loaded"):
        filter_sft_data(["a"], ["b"], str(tmp_path / "model"))


def test_pickled_weights_are_read_with_a_notice(
    tmp_path: Path, reward_model_folder: Path, bert: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt, response = KNOWN_EXAMPLE[0]
    [safe] = filter_sft_data([prompt], [response], str(reward_model_folder), -99.0)
    assert capsys.readouterr().err == ""
    shutil.copytree(reward_model_folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(bert.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    [pickled] = filter_sft_data([prompt], [response], str(tmp_path / "model"), -99.0)
    assert pickled == safe
    assert "read as weights only" in capsys.readouterr().err


class Intruder:
    """Unpickling it creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickled_code_is_not_run(tmp_path: Path, reward_model_folder: Path) -> None:
    shutil.copytree(reward_model_folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({"weight": Intruder(tmp_path / "intruded")}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        filter_sft_data(["a"], ["b"], str(tmp_path / "model"))
    assert not (tmp_path / "intruded").exists()


# Reward model folders, as training writes them

TEMPLATE = {"without_input": "{instruction} ->", "with_input": "{instruction} ( {input} ) ->"}
POOL = make_pool(
    [
        {"instruction": prompt, "input": "in full" if at % 2 else "", "output": reply}
        for at, (prompt, reply) in enumerate(MIXED)
    ],
    source="test",
)


@pytest.fixture
def folder(tmp_path: Path, reward_model_folder: Path, tokenizer: Any) -> Path:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    shutil.copytree(reward_model_folder, tmp_path / "rm" / "head")
    LlamaForCausalLM(config).save_pretrained(tmp_path / "rm" / "reference")
    tokenizer.save_pretrained(tmp_path / "rm" / "reference")
    card = {
        "features": ["head", "likelihood"],
        "weights": {"head": 0.5, "likelihood": 2.0},
        "template": TEMPLATE,
        "max_length": 64,
        "pairwise_accuracy": {"head": 0.9},
        "train_s": 1.0,
    }
    (tmp_path / "rm" / "reward.json").write_text(json.dumps(card))
    return tmp_path / "rm"


def rendered() -> tuple[list[str], list[str]]:
    rows = POOL.to_list()
    prompts = [row["instruction"] + (" ( in full )" if row["input"] else "") + " ->" for row in rows]
    return prompts, [row["output"] for row in rows]


def test_features_of_a_folder(folder: Path, bert: Any, tokenizer: Any) -> None:
    prompts, responses = rendered()
    head = score_folder(folder, POOL, features=["head"]).values
    np.testing.assert_allclose(
        head, score_pairs(bert, tokenizer, prompts, responses, template="joined", max_length=64), atol=1e-5
    )
    reference = LlamaForCausalLM.from_pretrained(folder / "reference")
    likelihood = score_folder(folder, POOL, features=["likelihood"]).values
    np.testing.assert_allclose(
        likelihood,
        mean_log_likelihood(reference, tokenizer, prompts, responses, max_length=64, token_budget=100),
        atol=1e-5,
    )
    both = score_folder(folder, POOL, features=["likelihood", "head"]).values
    np.testing.assert_allclose(both, 0.5 * head + 2.0 * likelihood, atol=1e-6)
    assert score_folder(folder, POOL).values.tolist() == both.tolist()


def test_the_head_of_a_folder_may_have_a_template(folder: Path, bert: Any, tokenizer: Any) -> None:
    card = json.loads((folder / "reward.json").read_text())
    (folder / "reward.json").write_text(json.dumps({**card, "head_template": "pair"}))
    found = score_folder(folder, POOL, features=["head"]).values
    expected = score_pairs(bert, tokenizer, *rendered(), template="pair", max_length=64)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_features_are_cached_apart_and_costs_add_up(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    head = score_folder(folder, POOL, features=["head"], cache=cache)
    distinct = len({(row["instruction"], row["input"], row["output"]) for row in POOL.to_list()})
    assert head.computed == distinct
    assert head.seconds > 0
    both = score_folder(folder, POOL, cache=cache)
    assert both.computed == distinct  # the likelihoods
    assert both.seconds > head.seconds
    shutil.rmtree(folder / "reference")  # nothing is loaded for what is cached
    (folder / "reference").mkdir()
    assert len(list((cache / "scores").glob("*.sqlite"))) == 2
    again = score_folder(folder, POOL, features=["head"], cache=cache)
    assert (again.computed, again.seconds) == (0, head.seconds)
    assert again.values.tolist() == head.values.tolist()


def test_another_model_or_text_is_scored_anew(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    score_folder(folder, POOL, features=["head"], cache=cache)
    corrupted = make_pool([{**row, "output": row["output"] + " oops"} for row in POOL.to_list()], source="s")
    assert corrupted["id"][:] == POOL["id"][:]  # ids stay, so they cannot be the key
    assert score_folder(folder, corrupted, features=["head"], cache=cache).computed > 0
    with (folder / "head" / "config.json").open("a") as file:
        file.write("\n")
    assert score_folder(folder, POOL, features=["head"], cache=cache).computed > 0


def test_mistakes_in_a_folder(folder: Path) -> None:
    card = json.loads((folder / "reward.json").read_text())
    (folder / "reward.json").write_text(json.dumps({**card, "features": ["head"]}))
    assert len(score_folder(folder, POOL).values) == len(POOL)
    with pytest.raises(UserError, match=r"scorer.features=\['likelihood'\]: .* has only \['head'\]"):
        score_folder(folder, POOL, features=["likelihood"])
    (folder / "reward.json").write_text("{}")
    with pytest.raises(UserError, match=r"reward.json cannot be used"):
        score_folder(folder, POOL)


# Dispatch


def test_score_by_kind(folder: Path, reward_model_folder: Path, bert: Any, tokenizer: Any) -> None:
    rows = [{**row, "noise_kind": "truncated" if at < 3 else None} for at, row in enumerate(POOL.to_list())]
    pool = make_pool(rows, source="s")

    def values(kind: Any, **options: Any) -> np.ndarray:
        return score(pool, ScorerConfig(kind=kind, **options), seed=1, models=Models(reward=folder)).values

    assert np.isnan(values("none")).all()
    assert values("length").tolist() == [len(row["output"].split()) for row in rows]
    assert values("oracle").tolist() == [0.0] * 3 + [1.0] * (len(rows) - 3)
    assert values("random").tolist() == values("random").tolist()
    assert len(set(values("random"))) == len(rows)
    assert values("reward_model").tolist() == score_folder(folder, pool).values.tolist()
    assert (
        values("reward_model", features=["head"]).tolist()
        == score_folder(folder, pool, features=["head"]).values.tolist()
    )
    asked = [row["instruction"] + ("\n\nin full" if row["input"] else "") for row in rows]
    expected = score_pairs(bert, tokenizer, asked, [row["output"] for row in rows], template="pair")
    np.testing.assert_allclose(
        values("reward_model", model=str(reward_model_folder), template="pair"), expected, atol=1e-5
    )


def test_mistakes_in_dispatch() -> None:
    with pytest.raises(UserError, match=r"scorer.model=null: which reward model"):
        score(POOL, ScorerConfig(kind="reward_model"), seed=0)
    with pytest.raises(UserError, match=r"scorer.model=/no/such: no such folder"):
        score(POOL, ScorerConfig(kind="reward_model", model="/no/such"), seed=0)


def test_the_tokenizer_of_the_fixture_loads(reward_model_folder: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(reward_model_folder)
    assert loaded("<|prompter|>explain<|endoftext|>")["input_ids"][0] == loaded.convert_tokens_to_ids("<|prompter|>")
