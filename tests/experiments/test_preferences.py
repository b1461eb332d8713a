"""Preference pairs from files of several layouts and from the hub."""

import json

import datasets
import pytest

from curate import UserError
from experiments.config import plain, validate
from experiments.prepare import preference_pairs, reward_folder

TEMPLATE = {"without_input": "{instruction} ->", "with_input": "{instruction} | {input} ->"}


@pytest.fixture
def config(composed, tmp_path):
    """A config whose data is a file, with these preference pairs."""

    def made(pairs, valid=None):
        pool = tmp_path / "pool.jsonl"
        pool.write_text(json.dumps({"instruction": "a", "output": "b"}))
        tree = plain(composed("experiment=quickstart", "arm=filtered"))
        tree["data"] |= {"name": "file", "path": str(pool), "template": TEMPLATE, "pairs": pairs, "pairs_valid": valid}
        return validate(tree)

    return made


def test_the_columns_may_be_called_either_way(config, tmp_path):
    (tmp_path / "a.csv").write_text('src,pos,neg\n"Instruction: do\nInput: it","Response: yes",Response: no\nx,,no\n')
    chat = [{"role": "user", "content": "do"}, {"role": "assistant", "content": "yes"}]
    rows = [{"prompt": "do", "chosen": chat, "rejected": "no"}, {"prompt": "do", "chosen": None, "rejected": "no"}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, valid = preference_pairs(config(str(tmp_path / "a.csv"), str(tmp_path / "b.jsonl")))
    assert train == [("do | it ->", "yes", "no")]
    assert valid == [("do ->", "yes", "no")]


def test_pairs_of_the_hub_are_named_by_what_they_are_called(config, monkeypatch):
    row = {"prompt": "do", "chosen": "yes", "rejected": "no"}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *_, **__: [row])
    one, other = config("hub:who/pairs"), config("hub:who/pairs@v2:test")
    assert preference_pairs(one) == ([("do ->", "yes", "no")], [])
    assert reward_folder(one) != reward_folder(other)


def test_a_file_without_a_pair_is_one_line(config, tmp_path):
    (tmp_path / "a.csv").write_text("src,good,bad\nx,y,z\n")
    with pytest.raises(UserError, match=r"^data.pairs=.*a.csv: holds no pair; give columns prompt, chosen"):
        preference_pairs(config(str(tmp_path / "a.csv")))
    with pytest.raises(UserError, match=r"^data.pairs: no.csv is neither here nor under .* hub:NAME$"):
        preference_pairs(config("no.csv"))
