"""Every experiment at debug=tiny, from the command line to the claims, with nothing but what the test makes."""

import csv
import json
import os
import sys

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from experiments import UserError, campaign, claims, run
from experiments.run import CONF
from tests import miniatures
from tests.stories import stories, write_stories

WORDS = [f"w{i}" for i in range(40)]


@pytest.fixture
def cli(monkeypatch, tmp_path, capfd):
    def call(*arguments):
        torch.set_num_threads(1)
        monkeypatch.setattr(sys, "argv", ["run.py", "debug=tiny", "launcher=serial", "tracking=none", *arguments])
        try:
            code = run.cli()
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()

    monkeypatch.chdir(tmp_path)
    return call


@pytest.fixture
def common(cli, monkeypatch, tmp_path_factory):
    """A folder for all experiments of the campaign, whatever process tests them: they share bases and runs."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "campaign"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def companions(tmp_path):
    """Alpaca and what lies beside it, in a language of forty words."""

    def text(i, n):
        return " ".join(WORDS[(i * 7 + j * 3) % 40] for j in range(n))

    (tmp_path / "alpaca").mkdir()
    rows = [{"instruction": text(i, 5), "input": "", "output": text(i + 1, 3 + i % 9)} for i in range(300)]
    rows += [{"instruction": "a row without an answer", "input": "", "output": ""}]
    (tmp_path / "alpaca" / "alpaca_data.json").write_text(json.dumps(rows))
    (tmp_path / "self_instruct").mkdir()
    for name, first in (("seed_tasks", 400), ("user_oriented_instructions", 500)):
        lines = [
            {"instruction": f"{text(i, 6)} w1", "instances": [{"input": text(i, 2), "output": text(i + 2, 6)}]}
            for i in range(first, first + 20)
        ]
        path = tmp_path / "self_instruct" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "car").mkdir()
    for name, n in (("train", 60), ("valid", 20)):
        with (tmp_path / "car" / f"expert_pairs_{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["src", "pos", "neg"])
            for i in range(n):
                writer.writerow([f"Instruction: {text(i, 4)}", f"Response: w9 {text(i, 5)}", f"Response: {text(i, 5)}"])
    for folder, name, first in (("lima", "lima.json", 600), ("dolly", "dolly_3k.json", 900)):
        (tmp_path / folder).mkdir()
        human = [
            {"instruction": f"{text(i, 6)} {folder}{i}", "input": "", "output": text(i, 12)}
            for i in range(first, first + 260)
        ]
        (tmp_path / folder / name).write_text(json.dumps(human))
    (tmp_path / "bbh").mkdir()
    yes_or_no = {"examples": [{"input": text(i, 7), "target": ("yes", "no")[i % 2]} for i in range(20)]}
    for name in ("sports_understanding", "navigate", "logical_deduction_three_objects"):
        (tmp_path / "bbh" / f"{name}.json").write_text(json.dumps(yes_or_no))
    (tmp_path / "truthfulqa").mkdir()
    lines = ["Question,Best Answer,Incorrect Answers", *(f"{text(i, 5)}?,w1 w2,w3; w4 w5" for i in range(20))]
    (tmp_path / "truthfulqa" / "TruthfulQA.csv").write_text("\n".join(lines))
    (tmp_path / "alpagasus").mkdir()
    (tmp_path / "alpagasus" / "claude_t45.json").write_text(json.dumps(rows[:-1:5]))
    return tmp_path


@pytest.fixture
def encoder(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForSequenceClassification(BertConfig(vocab_size=len(words), num_labels=1, **shape)).save_pretrained(
        tmp_path / "encoder"
    )
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def checked(report, arms, pairs):
    """The files that others rely on are there, complete, and agree with each other."""
    table = pd.read_csv(report / "runs.csv")
    assert set(table["arm"]) == arms
    assert set(table["seed_pair"]) == set(range(pairs))
    assert (report / "index.html").exists()
    assert (report / "REPORT.md").exists()
    assert claims.recompute(report)
    return json.loads((report / "claims.json").read_text())


def test_there_is_a_test_for_every_experiment():
    tested = {name.removeprefix("test_").removesuffix("_runs") for name in globals() if name.endswith("_runs")}
    tested |= {*LARGE, *campaign.EXPERIMENTS, *BESIDE}
    assert {path.stem for path in (CONF / "experiment").glob("*.yaml")} == tested


SHORT = ("label_noise", "peft")  # every kind of block and claim; the others take minutes
BESIDE = ("data_vs_model_rate",)  # with a command of its own, and made like those
LONG = [
    pytest.param(name, marks=pytest.mark.soak)
    for name in (*campaign.EXPERIMENTS, *BESIDE)
    if name not in (*SHORT, "judge_bias")
]


@pytest.mark.parametrize("name", [*SHORT, *LONG])
def test_of_the_campaign(cli, common, name):
    """Every block in one pair: too few for a verdict, enough to find every figure that a claim asks for."""
    # what is long at any size is made short, whatever the experiment says of it
    steps = ("training.steps=4", "training.points=[2]")
    code, _, err = cli(f"experiment={name}", "experiment.pairs=1", *steps)
    assert code == 0, err
    report = common / f"runs/tiny/reports/{name}"
    assert claims.recompute(report)
    judged = json.loads((report / "claims.json").read_text())
    # a short curve lacks the points that some claims are judged at; every other figure is there
    lost = [e["id"] for e in judged if "no pair has" in e["note"] and "step:" not in str(e["definition"])]
    assert lost == []
    assert {e["verdict"] for e in judged} <= {"inconclusive", "not_comparable"}


def test_quickstart_runs(cli, tmp_path):
    code, out, err = cli("experiment=quickstart", "experiment.pairs=1")
    assert code == 0, err
    arms = {"full", "filtered", "filtered_bt", "oracle", "random", "random_length_matched", "longest", "duplicated"}
    judged = checked(tmp_path / "runs/tiny/reports/quickstart", arms, 1)
    assert len(judged) == 9
    assert all(entry["pairs"] == 1 for entry in judged)
    assert "report: runs/tiny/reports/quickstart/index.html" in out


def test_judge_bias_runs(cli, tmp_path):
    code, _, err = cli("experiment=judge_bias", "experiment.pairs=1")
    assert code == 0, err
    arms = {"random", "filtered", "biased_long", "biased_style", "biased_style_length_matched"}
    judged = checked(tmp_path / "runs/tiny/reports/judge_bias", arms, 1)
    assert len(judged) == 8
    assert all(entry["pairs"] == 1 for entry in judged)


def test_alpaca_smoke_runs(cli, tmp_path, companions, encoder, tokenizer, make_model):
    make_model().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    code, out, err = cli(
        "experiment=alpaca_smoke",
        f"data.path={companions / 'alpaca' / 'alpaca_data.json'}",
        "model=hf",
        f"model.path={tmp_path / 'model'}",
        f"model.reward.backbone={encoder}",
        "training.lr=0.02",
        "training.max_length=64",
        "evaluation.max_reference_tokens=4",
    )
    assert code == 0, err
    judged = checked(tmp_path / "runs/tiny/reports/alpaca_smoke", {"full", "filtered", "random", "longest"}, 2)
    assert {entry["metric"] for entry in judged} == {"ood/nll", "ood/nll_answer", "ood/gap"}
    assert "longer wins" in out
    record = json.loads(next((tmp_path / "runs/tiny").glob("*/record.json")).read_text())
    assert record["data"]["set_aside"] == 1
    assert not list((tmp_path / "runs").rglob("*.bin"))


@pytest.fixture
def on_real_data(cli, tmp_path, companions, encoder, tokenizer, make_model):
    """on_real_data(NAME, ...): an experiment on Alpaca's companions with a tiny model, judged; and its records."""

    def call(name, *arguments, arms, pairs=1):
        make_model().save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        code, _, err = cli(
            f"experiment={name}",
            f"data.root={companions}",
            f"experiment.pairs={pairs}",
            "model=hf",
            f"model.path={tmp_path / 'model'}",
            f"model.reward.backbone={encoder}",
            "training.lr=0.02",
            "training.max_length=64",
            "evaluation.max_reference_tokens=4",
            "evaluation.must_move=false",  # six steps are too few for that
            *arguments,
        )
        assert code == 0, err
        judged = checked(tmp_path / f"runs/tiny/reports/{name}", arms, pairs)
        return judged, [json.loads(path.read_text()) for path in (tmp_path / "runs/tiny").glob("*/record.json")]

    return call


@pytest.mark.soak  # alpaca_revised goes the same way
def test_alpaca_small_runs(on_real_data, companions):
    arms = {"full", "filtered", "random", "random_length_matched", "longest", "claude", "lima"}
    # the sizes are the experiment's business: claims that name one have none of it here
    judged, records = on_real_data("alpaca_small", "selection.k=24", "data.rows=200", arms=arms)
    judged_here = {"real_filtered_full", "real_claude_random", "real_claude_random_gap"}
    assert {entry["definition"]["id"] for entry in judged} == judged_here
    by_arm = {record["arm"]: record for record in records}
    assert {arm: by_arm[arm]["data"]["rows"] for arm in ("full", "claude", "filtered")} == {
        "full": 200, "claude": 24, "filtered": 24,
    }  # fmt: skip
    items = by_arm["random"]["metrics"]["best_val"]["items"]
    assert {name.split(":")[1] for name in items} == {"user_oriented", "lima", "dolly"}


@pytest.mark.soak  # alpaca_revised goes the same way
def test_alpaca_noise_runs(on_real_data):
    judged, records = on_real_data("alpaca_noise", "data.rows=60", arms={"full"}, pairs=2)
    assert len(judged) == 5 and all(entry["pairs"] == 2 for entry in judged)
    assert sorted(record["data"]["noise_rate"] for record in records) == [0.0] * 2 + [0.25] * 4 + [0.5] * 4


@pytest.mark.soak  # alpaca_revised goes the same way
def test_alpaca_duplication_runs(on_real_data):
    judged, records = on_real_data("alpaca_duplication", "data.rows=60", arms={"duplicated"}, pairs=2)
    assert len(judged) == 5 and all(entry["pairs"] == 2 for entry in judged)
    assert {record["data"]["unique_rows"] for record in records} == {16, 30, 45, 60}


def test_alpaca_revised_runs(on_real_data):
    matched = "data.max_length_ratio=1.25"
    judged, records = on_real_data("alpaca_revised", "data.rows=40", matched, arms={"revised", "original"}, pairs=2)
    assert [(entry["id"], entry["pairs"]) for entry in judged] == [
        ("revised_equal_length", 2), ("revised_equal_length_gap", 2),
    ]  # fmt: skip
    assert all("items crossed with the pairs" in entry["note"] for entry in judged)
    assert len({record["data"]["subset_hash"] for record in records}) == len(records)


MINIATURE = (
    "experiment.pairs=1",
    "training.lr=0.02",
    "training.warmup=1",
    "evaluation.must_move=false",  # six steps are too few for that
    "training.max_length=64",
)


@pytest.mark.soak  # alpaca_smoke goes the same way
def test_alpaca_gpu_runs(cli, tmp_path, companions, encoder):
    miniatures.save(tmp_path / "model", "llama2_7b", ["<pad>", "<eos>", "<unk>", *WORDS])
    code, _, err = cli(
        "experiment=alpaca_gpu",
        f"data.path={companions / 'alpaca' / 'alpaca_data.json'}",
        "model=llama2_7b",
        f"model.path={tmp_path / 'model'}",
        f"model.reward.backbone={encoder}",
        *MINIATURE,
    )
    assert code == 0, err
    judged = checked(tmp_path / "runs/tiny/reports/alpaca_gpu", {"full", "filtered", "random", "longest"}, 1)
    assert len(judged) == 7 and all(entry["pairs"] == 1 for entry in judged)
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs/tiny").glob("*/record.json")]
    assert sorted(record["data"]["rows"] for record in records) == [36, 36, 36, 200]  # .1775 of 200


@pytest.mark.soak  # alpaca_revised goes the same way
@pytest.mark.parametrize(("name", "arms"), [("alpagasus_7b", 5), ("alpaca_full", 6)])
def test_large_ones_with_miniatures(cli, tmp_path, companions, encoder, name, arms):
    model = {"alpagasus_7b": "llama2_7b", "alpaca_full": "llama32_1b"}[name]
    miniatures.save(tmp_path / "model", model, ["<pad>", "<eos>", "<unk>", *WORDS])
    code, _, err = cli(
        f"experiment={name}",
        f"data.root={companions}",
        f"model.path={tmp_path / 'model'}",
        f"model.reward.backbone={encoder}",
        *MINIATURE,
        *(["selection.k=24"] if name == "alpaca_full" else []),
    )
    assert code == 0, err
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs/tiny").glob("*/record.json")]
    assert len(records) == arms
    whole = name == "alpagasus_7b"
    assert {record["data"]["trainable_share"] == 1 for record in records} == {whole}


REAL = {"alpaca_small": 54, "alpaca_revised": 24, "alpaca_noise": 30, "alpaca_duplication": 42}
LARGE = {"alpagasus_7b": 15, "alpaca_full": 18}


@pytest.mark.parametrize(("name", "runs"), [*REAL.items(), *LARGE.items()])
def test_what_real_data_would_run(name, runs, tmp_path):
    """As many runs as its claims need, each doing what the file says, from files under one root."""
    for path in (
        "alpaca/alpaca_data.json",
        "alpagasus/claude_t45.json",
        "lima/lima.json",
        "car/expert_pairs_train.csv",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    plan, claims_of = campaign.planned(name, [f"data.root={tmp_path}"])
    assert len(plan.configs) == runs and claims_of
    for config in plan.configs.values():
        assert config.data.drop_asked
        assert (config.model.lora is None) is (name == "alpagasus_7b")
        if name in REAL:
            # 256 rows three times, 1,000 rows once, and elsewhere 256 rows once
            expected = (96 if config.data.rows == 2800 else 125) if name == "alpaca_small" else 32
            assert config.training.steps == expected
    with pytest.raises(UserError, match=r"data\.path=.*: no such file here or under data\.root"):
        campaign.planned(name, [f"data.root={tmp_path / 'nowhere'}"])


def test_lima_judge_runs(cli, tmp_path, companions, tokenizer, make_model, stub):
    make_model().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    asked = [{"instruction": f"w1 w2 w{i} w4 w5", "input": "", "output": f"gold w{i}"} for i in range(6)]
    path = companions / "opponent.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in asked))

    def says(message):  # the opponent is better for odd numbers; else the judge likes what comes first
        first = message.index("gold") < message.index("[[END RESPONSE_A")
        odd = int(message.split("gold w")[1].split()[0]) % 2
        return json.dumps({"better": ("A" if first else "B") if odd else "A"})

    stub.says = says
    arguments = (
        "experiment=lima_judge",
        f"data.path={companions / 'alpaca' / 'alpaca_data.json'}",
        f"model.path={tmp_path / 'model'}",
        "training.lr=0.02",
        "training.max_length=64",
        "training.bf16=false",
        "evaluation.max_reference_tokens=4",
        "evaluation.suites.opponent.path=opponent.jsonl",
        "evaluation.pairwise.max_new_tokens=4",
        f"evaluation.pairwise.endpoint.base_url={stub.url}",
        "evaluation.pairwise.endpoint.api_key_env=JUDGE_KEY",
    )
    code, _, err = cli(*arguments)
    assert code == 0, err
    [judged] = checked(tmp_path / "runs/tiny/reports/lima_judge", {"full"}, 2)
    assert (judged["id"], judged["control"], judged["pairs"], judged["estimate"]) == ("lima_43", {}, 2, 0.5)
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs/tiny").glob("*/record.json")]
    for record in records:
        assert record["metrics"]["end"]["opponent"]["preferred_or_tie"] == {"value": 0.5, "n": 6}
        assert record["metrics"]["end"]["opponent"]["position_bias"] == {"value": 0.5, "n": 6}
        assert all("opponent" not in values for point, values in record["metrics"].items() if point != "end")
    lines = next((tmp_path / "runs/tiny").glob("*/pairwise.jsonl")).read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["tie", "lose"] * 3


@pytest.mark.soak  # source_setting goes the same way
def test_small_clean_models_runs(cli, tmp_path):
    code, out, err = cli("experiment=small_clean_models", "experiment.pairs=1")
    assert code == 0, err
    judged = checked(tmp_path / "runs/tiny/reports/small_clean_models", {"clean_narrow", "noisy_broad"}, 1)
    assert {entry["verdict"] for entry in judged if entry["id"].startswith("small_clean_rivals")} == {"inconclusive"}
    assert "0 base models to build" in out


def test_source_setting_runs(cli, tmp_path):
    path = write_stories(tmp_path / "stories.txt", stories(400))
    code, _, err = cli("experiment=source_setting", "experiment.pairs=1", f"data.path={path}")
    assert code == 0, err
    judged = checked(tmp_path / "runs/tiny/reports/source_setting", {"full", "corrupted", "duplicated"}, 1)
    assert {entry["metric"] for entry in judged} == {"stories/accuracy", "stories/perplexity"}
    assert all(entry["pairs"] == 1 for entry in judged)
