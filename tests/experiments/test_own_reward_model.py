"""A reward model for one's own data: one command from pairs to a folder that curate scores with."""

import json

import pytest
import torch
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from curate.example import make_pool
from curate.scoring.reward_model import score_folder
from experiments import UserError
from experiments.config import plain, run_id, validate
from experiments.prepare import reward_folder
from experiments.reward_model import CONF, make


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "do", "good", *(f"w{i}" for i in range(40))]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertForSequenceClassification(BertConfig(vocab_size=len(words), num_labels=1, **shape)).save_pretrained(folder)
    return folder


@pytest.fixture
def values(encoder, tmp_path):
    """The shipped config for a tiny encoder: the better response says good, whatever its length."""
    rows = [
        {"prompt": f"do w{i}", "chosen": f"good w{i % 9}", "rejected": " ".join([f"w{i % 9}"] * (1 + i % 3))}
        for i in range(80)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shipped = OmegaConf.load(CONF / "reward_model.yaml")
    del shipped["hydra"]
    more = {"pairs": str(tmp_path / "pairs.jsonl"), "out": str(tmp_path / "rm"), "reward": {"backbone": str(encoder)}}
    return OmegaConf.to_container(OmegaConf.merge(shipped, more))


def test_from_pairs_to_scores(values, tmp_path):
    said = make(values)
    card = json.loads((tmp_path / "rm" / "reward.json").read_text())
    assert card["pairwise_accuracy"]["joint"] == 1.0 and card["balanced_accuracy"] == 1.0
    assert said.startswith(f"{tmp_path / 'rm'}: pairwise accuracy 1.000 on 4 pairs, 1.000 with longer")
    pool = make_pool([{"instruction": "do w1", "output": text} for text in ("w2 w2", "good w2")], source="test")
    worse, better = score_folder(tmp_path / "rm", pool).values
    assert better > worse


def test_valid_pairs_are_measured_with_and_escapes_are_mended_in_them_too(values, tmp_path):
    (tmp_path / "valid.csv").write_text('src,pos,neg\nInstruction: do w1,Response: good w2,"Response: w2\\n"\n')
    make({**values, "valid": str(tmp_path / "valid.csv")})
    assert json.loads((tmp_path / "rm" / "reward.json").read_text())["pairs"] == {"train": 80, "weights": 4, "test": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": None}, "pairs=null: name a file of preference pairs"),
        ({"out": None}, "out=null: name a new folder"),
        ({"out": "."}, r"out=\.: is there already"),
        ({"reward": {"padding": -1}}, r"reward\.padding=-1: "),
        ({"reward": {"backbone": None}}, r"reward\.backbone, reward\.template: null"),
    ],
)
def test_mistakes_are_one_line(values, changes, message):
    reward = {**values["reward"], **changes.get("reward", {})}
    with pytest.raises(UserError, match=f"^{message}"):
        make({**values, **changes, "reward": reward})


def test_keys_that_do_nothing_are_no_part_of_an_id_and_those_that_do_are(composed):
    config = validate(composed("experiment=quickstart", "arm=filtered"))
    for key, value in (("padding", 1.0), ("length_orthogonal", True), ("unescape", True)):
        tree = plain(composed("experiment=quickstart", "arm=filtered"))
        tree["model"]["reward"] |= {"padding": 0.0, "length_orthogonal": False, "unescape": False}
        assert run_id(validate(tree)) == run_id(config)
        assert reward_folder(validate(tree)) == reward_folder(config)
        tree["model"]["reward"][key] = value
        assert run_id(validate(tree)) != run_id(config)
        assert reward_folder(validate(tree)) != reward_folder(config)
