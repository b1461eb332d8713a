"""The reward model: it prefers what was preferred, on pairs it never saw, and its parts are joined with sense."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from train import UserError, reward_head
from train.config import RewardModelConfig, TrainingConfig
from train.pairs import longer, padded
from train.reward_head import fit_margins
from train.reward_model import Pair, _joint_weights, train_reward_model

TEMPLATE = {"without_input": "<q> {instruction} <a>", "with_input": "<q> {instruction} {input} <a>"}


def pairs(n=160):
    """The preferred response says ok, the other does not; prompts are all different."""
    return [Pair(f"<q> w{i % 40} w{i // 40} <a>", f"ok : w{i % 7}", f"w{i % 7}") for i in range(n)]


def config(**keys):
    defaults = {"epochs": 4, "lr": 3e-3, "batch_size": 16, "max_length": 32, "held_out": 0.25}
    return RewardModelConfig(**{**defaults, **keys})


@pytest.fixture
def base(tmp_path, tokenizer, make_model):
    make_model().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def train(base, out, config, given=None, **keys):
    out.mkdir()
    return train_reward_model(out, base, given or pairs(), config, template=TEMPLATE, seed=0, **keys)


def test_the_head_learns_preferences_and_is_saved_as_safetensors(base, tmp_path):
    card = train(base, tmp_path / "rm", config())
    assert card["pairwise_accuracy"]["head"] > 0.95
    assert card["features"] == ["head"] and card["weights"] == {"head": 1.0}
    assert card["pairs"] == {"train": 120, "weights": 20, "test": 20}
    assert (tmp_path / "rm" / "head" / "model.safetensors").exists()
    assert not list((tmp_path / "rm").rglob("*.bin"))
    assert json.loads((tmp_path / "rm" / "reward.json").read_text()) == card


def test_longer_wins_is_measured_beside_it(base, tmp_path):
    assert train(base, tmp_path / "rm", config())["pairwise_accuracy"]["longer_wins"] == 1.0
    swapped = [Pair(p.prompt, p.rejected, p.chosen) for p in pairs()]
    assert train(base, tmp_path / "rm2", config(), swapped)["pairwise_accuracy"]["longer_wins"] == 0.0


def test_the_likelihood_joins_the_head(base, tmp_path):
    reference = TrainingConfig(steps=60, points=[], batch_size=16, lr=3e-3, warmup=5, max_length=32)
    card = train(base, tmp_path / "rm", config(reference=reference))
    assert card["features"] == ["head", "likelihood"]
    assert card["pairwise_accuracy"]["likelihood"] > 0.9 and card["pairwise_accuracy"]["joint"] > 0.9
    assert (tmp_path / "rm" / "reference" / "model.safetensors").exists()


def test_accuracies_are_those_of_the_valid_pairs_when_there_are_any(base, tmp_path):
    valid = [Pair(p.prompt, p.rejected, p.chosen) for p in pairs(40)]
    card = train(base, tmp_path / "rm", config(), valid=valid)
    assert card["pairs"]["test"] == 40
    assert card["pairwise_accuracy"]["head"] < 0.05


def test_same_seed_same_bytes(base, tmp_path):
    for name in ("one", "two"):
        torch.manual_seed(hash(name) % 1000)
        train(base, tmp_path / name, config(epochs=1))
    one, two = ((tmp_path / n / "head" / "model.safetensors").read_bytes() for n in ("one", "two"))
    assert one == two


@pytest.fixture
def encoder(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<q>", "<a>", "ok", ":", *(f"w{i}" for i in range(40))]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    encoder = BertForSequenceClassification(BertConfig(vocab_size=len(words), num_labels=1, **shape))
    encoder.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return encoder


def test_an_encoder_as_it_is_gets_a_fitted_classifier(encoder, tmp_path):
    from transformers import BertForSequenceClassification

    card = train(tmp_path / "bert", tmp_path / "rm", config(trained_layers=0))
    assert card["head_template"] == "pair"
    assert card["pairwise_accuracy"]["head"] > 0.9
    saved = BertForSequenceClassification.from_pretrained(tmp_path / "rm" / "head")
    assert torch.equal(saved.bert.embeddings.word_embeddings.weight, encoder.bert.embeddings.word_embeddings.weight)


def test_a_decoder_has_no_classifier_to_fit(base, tmp_path):
    with pytest.raises(UserError, match="trained_layers=0"):
        train(base, tmp_path / "rm", config(trained_layers=0))


def test_weights_follow_the_feature_that_tells():
    rng = np.random.default_rng(0)
    telling, noise = rng.normal(1.0, 1.0, 2000), rng.normal(0.0, 50.0, 2000)
    weights = _joint_weights(np.column_stack([telling, noise]))
    assert weights[0] > 0.5 and abs(weights[1]) < weights[0] / 100


def test_too_few_pairs_are_the_users_to_mend(base, tmp_path):
    with pytest.raises(UserError, match=r"data\.pairs: 2 preference pairs are too few"):
        train(base, tmp_path / "rm", config(), pairs(2))


# --- what is not to be learnt ---------------------------------------------------------------------------------------


def test_margins_have_no_covariance_with_length_and_still_find_what_is_better():
    rng = np.random.default_rng(0)
    length = rng.normal(0.7, 1.0, 400)  # chosen responses are longer
    margins = rng.normal(0.0, 1.0, (400, 6))
    margins[:, 0] += length
    margins[:, 1] += 0.8  # the quality
    plain, orthogonal = fit_margins(margins), fit_margins(margins, length=length)
    assert plain[0] > 0.3
    assert abs(np.mean(margins @ orthogonal * length)) < 1e-9
    assert orthogonal[1] > 0.5


def test_what_padding_moves_loses_its_weight():
    rng = np.random.default_rng(0)
    margins = rng.normal(0.8, 1.0, (400, 4))
    changes = np.zeros((400, 4))
    changes[:, 2] = rng.normal(1.0, 0.2, 400)
    plain = fit_margins(margins)
    previous = plain[2]
    assert previous > 0.3
    for penalty in (0.1, 1.0, 10.0):
        weights = fit_margins(margins, changes, penalty)
        assert abs(weights[2]) < previous / 1.5
        assert weights[0] > 0.3
        previous = abs(weights[2])
    np.testing.assert_allclose(fit_margins(margins, changes, 0.0), plain, rtol=1e-2)


def test_the_penalty_is_that_of_the_docstring():
    from scipy.optimize import minimize

    rng = np.random.default_rng(1)
    margins, changes = rng.normal(0.5, 1.0, (50, 3)), rng.normal(0.0, 1.0, (20, 3))

    def loss(w):
        pairs = np.logaddexp(0, -margins @ w).sum() * 2 + 2 * 50 * 0.7 * np.mean((changes @ w) ** 2)
        return pairs + w @ w / (2 * 0.1)

    np.testing.assert_allclose(fit_margins(margins, changes, 0.7), minimize(loss, np.zeros(3)).x, atol=1e-3)


def test_a_tuned_head_is_told_not_to_pay_for_padding(encoder, tmp_path, monkeypatch):
    """The chosen response has `ok` and `w39` more; `w39` is what padding adds."""
    monkeypatch.setattr(reward_head, "padded", lambda text, rng: f"{text} w39")
    given = [Pair(p.prompt, f"{p.rejected} ok w39", p.rejected) for p in pairs()]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "bert")
    share = {}
    for penalty in (0.0, 3.0):
        head = reward_head.train_head(tmp_path / "bert", tokenizer, given, config(padding=penalty), 0)
        texts = {"": 0.0, " w39": 0.0, " ok w39": 0.0}
        for more in texts:
            same = [Pair(p.prompt, p.rejected + more, "") for p in given]
            rows = reward_head.encode_pairs(tokenizer, same, 32)[: len(given)]
            with torch.inference_mode():
                texts[more] = float(reward_head.head_scores(head, reward_head.collate_rows(rows, 0)).mean())
        assert texts[" ok w39"] > texts[""]
        share[penalty] = abs(texts[" w39"] - texts[""]) / (texts[" ok w39"] - texts[""])
    assert share[3.0] < share[0.0] / 2


def test_padding_adds_something_and_loses_nothing():
    rng = np.random.default_rng(0)
    text = "Paris is big. It is the capital of France."
    made = {padded(text, rng) for _ in range(200)}
    assert len(made) > 10 and text not in made
    assert all("It is the capital of France." in one and "Paris is big." in one for one in made)
    listed = "- one\n- two"
    assert all(listed in padded(listed, rng) for _ in range(50))


def test_no_phrase_of_the_padding_is_one_that_the_probe_uses():
    from curate.bias import ENGLISH
    from train import pairs as module

    probed = " ".join(edit.apply("Yes. No.") for edit in ENGLISH).lower()
    for phrase in (*module._PREFACES, *module._CLOSINGS):
        words = phrase.lower().split()
        assert not any(" ".join(words[at : at + 4]) in probed for at in range(len(words) - 3)), phrase


def test_longer_is_in_standard_deviations_and_knows_the_side():
    found = longer([Pair("", "a b c", "a"), Pair("", "a", "a b c"), Pair("", "a", "b")])
    assert found[0] > 0 > found[1] and found[2] == 0
    assert np.std(found) == pytest.approx(1)
