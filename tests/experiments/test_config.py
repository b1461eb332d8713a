"""A run's config: mistakes are named in one line, and its id depends on what matters and on nothing else."""

import json
import shutil

import pytest

from curate import microworld
from experiments import UserError
from experiments.config import (
    RESULTS_VERSION,
    check_paths,
    content_hash,
    essence,
    expand,
    located,
    run_id,
    validate,
    validate_experiment,
    versions,
)

# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("noise.rate=1.5", r"noise\.rate=1\.5: .*less than or equal to 1"),
        ("noise.rate=-0.1", r"noise\.rate=-0\.1: .*greater than or equal to 0"),
        ("selection.k=-3", r"selection\.k=-3: .*greater than or equal to 1"),
        ("training.lr=0", r"training\.lr=0: .*greater than 0"),
        ("seed.pair=-1", r"seed\.pair=-1: .*greater than or equal to 0"),
        ("seed.pair=x", r"seed\.pair=x: .*integer"),
        ("seed.bases=0", r"seed\.bases=0: .*greater than or equal to 1"),
        ("tracking.mode=loud", r"tracking\.mode=loud: .*'offline', 'online' or 'none'"),
        ("+noise.colour=red", r"noise\.colour=red: there is no such key"),
        ("+colour=red", r"colour=red: there is no such key"),
    ],
)
def test_a_value_out_of_range_is_one_line_with_key_value_and_mend(composed, override, said):
    with pytest.raises(UserError, match=said) as error:
        validate(composed("noise=mixture", "selection=top_k", "selection.k=5", override))
    assert "\n" not in str(error.value)


def test_experiments_are_checked_too(composed):
    with pytest.raises(UserError, match=r"experiment\.pairs=0: .*greater than or equal to 1"):
        validate_experiment(composed("experiment.pairs=0"))
    with pytest.raises(UserError, match=r"experiment\.name=a/b"):
        validate_experiment(composed("experiment.name=a/b"))


def test_values_are_checked_before_paths(composed):
    with pytest.raises(UserError, match=r"noise\.rate=2"):
        validate(composed("data=alpaca", "data.path=/not/there.json", "noise=mixture", "noise.rate=2"))


def test_a_data_file_or_model_that_is_not_there_is_named(configured):
    with pytest.raises(UserError, match=r"data\.path=/not/there\.json: no such file; give"):
        check_paths(configured("data=alpaca", "data.path=/not/there.json"))
    with pytest.raises(UserError, match=r"data\.path=mine\.json: data=microworld makes rows of its own and reads no"):
        configured("data.path=mine.json")
    with pytest.raises(UserError, match=r"scorer\.model=/not/there: no such folder; give"):
        check_paths(configured("scorer=reward_model", "scorer.model=/not/there"))
    check_paths(configured("scorer=reward_model", "scorer.model=OpenAssistant/reward-model-deberta-v3-large-v2"))


# --- seeds ----------------------------------------------------------------------------------------------------------


def test_a_pair_chooses_all_seeds_and_the_base_cycles(configured):
    seeds = [configured(f"seed.pair={pair}").seed for pair in range(5)]
    assert [seed.base for seed in seeds] == [0, 1, 2, 0, 1]
    for name in ("data", "select", "train"):
        assert [getattr(seed, name) for seed in seeds] == [0, 1, 2, 3, 4]
    assert {seed.world for seed in seeds} == {0}


def test_a_seed_that_is_given_stays(configured):
    seed = configured("seed.pair=4", "seed.train=7", "seed.base=0").seed
    assert (seed.base, seed.data, seed.select, seed.train) == (0, 4, 4, 7)


# --- identity -------------------------------------------------------------------------------------------------------

SAME = [
    ("tracking", ["tracking=none"], ["tracking=offline"]),
    ("models sent", ["model.save=true"], ["model.save=true", "tracking.models=true"]),
    ("a scorer that nothing uses", ["selection=random", "scorer=length"], ["selection=random", "scorer=none"]),
    ("the kind of no noise", ["noise=mixture", "noise.rate=0"], ["noise=none"]),
    ("the source of no copies", ["duplication=concentrated", "duplication.rate=0"], ["duplication=none"]),
    ("a selection seed that draws nothing", ["seed.select=1"], ["seed.select=2"]),
    ("the index of the pair", ["seed.pair=0"], ["seed.pair=3", "seed.data=0", "seed.train=0"]),
    ("the size of a selection of all", ["selection=all", "selection.k=5"], ["selection=all"]),
    ("how a reward model that nothing uses is trained", ["model.reward.lr=0.5"], ["model.reward.lr=0.6"]),
    ("what a report leads with", ["evaluation.primary=id/em"], ["evaluation.primary=ood/em"]),
]
DIFFERENT = [
    ("data seed", ["seed.data=1"], ["seed.data=2"]),
    ("training seed", ["seed.train=1"], ["seed.train=2"]),
    ("base", ["seed.base=1"], ["seed.base=2"]),
    ("selection seed of a draw", ["arm=random", "seed.select=1"], ["arm=random", "seed.select=2"]),
    ("selection seed of copies", ["arm=duplicated", "seed.select=1"], ["arm=duplicated", "seed.select=2"]),
    ("rate", ["noise=mixture", "noise.rate=0.2"], ["noise=mixture", "noise.rate=0.4"]),
    ("kind of noise", ["noise=mixture"], ["noise=truncated"]),
    ("scorer", ["arm=filtered"], ["arm=filtered_bt"]),
    (
        "scores that choose lengths",
        ["arm=random_length_matched"],
        ["arm=random_length_matched", "scorer=reward_model_bt"],
    ),
    ("size", ["arm=longest", "selection.fraction=0.1"], ["arm=longest", "selection.fraction=0.2"]),
    ("learning rate", ["training.lr=0.001"], ["training.lr=0.002"]),
    ("reward model's training", ["arm=filtered", "model.reward.lr=0.1"], ["arm=filtered", "model.reward.lr=0.2"]),
    ("copies", ["arm=full"], ["arm=duplicated"]),
    ("facts", ["data.facts=known"], ["data.facts=unknown"]),
    ("oracle and random", ["arm=oracle"], ["arm=random"]),
]


@pytest.mark.parametrize(("one", "two"), [pair[1:] for pair in SAME], ids=[pair[0] for pair in SAME])
def test_what_does_not_matter_does_not_change_the_id(configured, one, two):
    assert run_id(configured(*one)) == run_id(configured(*two))


@pytest.mark.parametrize(("one", "two"), [pair[1:] for pair in DIFFERENT], ids=[pair[0] for pair in DIFFERENT])
def test_what_matters_changes_the_id(configured, one, two):
    assert run_id(configured(*one)) != run_id(configured(*two))


def test_a_pool_of_all_facts_needs_no_mention(configured):
    assert "facts" not in essence(configured())["data"]
    assert essence(configured("data.facts=rare"))["data"]["facts"] == "rare"
    with pytest.raises(UserError, match=r"facts=known: only the embedded world"):
        configured("data=file", "data.path=x.jsonl", "data.facts=known")


def test_the_name_of_an_arm_does_not_change_the_id(configured):
    config = configured("arm=random")
    assert run_id(config.model_copy(update={"arm": "another name"})) == run_id(config)


def test_the_version_of_the_code_is_part_of_the_id(configured, monkeypatch):
    config = configured()
    before = run_id(config)
    monkeypatch.setitem(RESULTS_VERSION, "train", 99)
    assert run_id(config) != before


@pytest.mark.parametrize(
    ("overrides", "reads"),
    [
        ((), True),
        (("data=world_text", "model=scratch", "evaluation=world_text"), True),
        (("data=alpaca", "data.path=x.json", "model=smollm2", "evaluation=references"), False),
        (("data=alpaca", "data.path=x.json", "evaluation=references"), True),  # its base has read the world
        (("data=alpaca", "data.path=x.json", "model=smollm2"), True),  # is asked the world's questions
    ],
)
def test_the_version_of_the_world_is_part_of_the_id_where_it_is_read(configured, monkeypatch, overrides, reads):
    config = configured(*overrides)
    before, made_by = run_id(config), versions(config)
    monkeypatch.setattr(microworld, "VERSION", microworld.VERSION + 1)
    assert (run_id(config) != before) == reads
    assert ("world" in made_by) == reads


@pytest.mark.parametrize(
    ("overrides", "may_be_small"),
    [
        ((), True),
        (("data=world_text", "model=scratch", "evaluation=world_text"), True),
        (("data=alpaca", "data.path=x.json", "model=hf", "model.path=x"), True),
        (("data=alpaca", "data.path=x.json", "model=smollm2"), False),
    ],
)
def test_the_version_of_the_small_decoder_is_part_of_the_id_where_a_model_may_be_small(
    configured, monkeypatch, overrides, may_be_small
):
    config = configured(*overrides)
    before, made_by = run_id(config), versions(config)
    monkeypatch.setattr("experiments.config.DECODER_VERSION", 99)
    assert (run_id(config) != before) == ("decoder" in made_by) == may_be_small


def test_a_data_file_counts_by_its_content(configured, tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "rows.json").write_text("[1]")
    ids = [run_id(configured("data=alpaca", f"data.path={tmp_path / place / 'rows.json'}")) for place in ("a", "b")]
    assert ids[0] == ids[1]
    (tmp_path / "b" / "rows.json").write_text("[1, 2]")
    assert run_id(configured("data=alpaca", f"data.path={tmp_path / 'b' / 'rows.json'}")) != ids[0]
    assert str(tmp_path) not in json.dumps(
        essence(configured("data=alpaca", f"data.path={tmp_path / 'b' / 'rows.json'}"))
    )


def test_a_folder_counts_by_the_content_of_its_files(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "sub").mkdir(parents=True)
    (one / "sub" / "weights").write_text("w")
    shutil.copytree(one, two)
    assert content_hash(one) == content_hash(two)
    (two / "sub" / "weights").rename(two / "sub" / "other")
    assert content_hash(one) != content_hash(two)


# --- expansion ------------------------------------------------------------------------------------------------------


def test_axes_of_a_block_are_crossed_and_blocks_are_added():
    cells = expand([{"arm": ["full", "random"], "noise.rate": [0.2, 0.4]}, {"arm": "longest"}], {}, 2)
    assert len(cells) == 2 * (4 + 1)
    assert cells[:5] == [
        {"arm": "full", "noise.rate": 0.2, "seed.pair": 0},
        {"arm": "full", "noise.rate": 0.4, "seed.pair": 0},
        {"arm": "random", "noise.rate": 0.2, "seed.pair": 0},
        {"arm": "random", "noise.rate": 0.4, "seed.pair": 0},
        {"arm": "longest", "seed.pair": 0},
    ]


def test_one_whole_pair_comes_before_the_next():
    cells = expand([{"arm": ["full", "random"]}, {"arm": "longest"}], {}, 3)
    assert [cell["seed.pair"] for cell in cells] == [0] * 3 + [1] * 3 + [2] * 3


def test_the_command_line_wins_over_blocks():
    cells = expand(
        [{"arm": "full", "noise.rate": 0.5}, {"arm": "random"}], {"noise.rate": [0, 0.2], "seed.pair": [4]}, 9
    )
    assert [(c["arm"], c["noise.rate"], c["seed.pair"]) for c in cells] == [
        ("full", 0, 4), ("full", 0.2, 4), ("random", 0, 4), ("random", 0.2, 4),
    ]  # fmt: skip


def test_arms_on_the_command_line_choose_among_the_blocks():
    blocks = [{"arm": ["full", "random"]}, {"arm": "duplicated", "duplication.rate": [0.25, 1.0]}]
    assert expand(blocks, {"arm": ["random"]}, 1) == [{"arm": "random", "seed.pair": 0}]
    assert [c["arm"] for c in expand(blocks, {"arm": ["random", "duplicated"]}, 1)] == [
        "random",
        "duplicated",
        "duplicated",
    ]
    # an arm that no block has takes the place of theirs
    assert {c["arm"] for c in expand(blocks, {"arm": ["new"]}, 1)} == {"new"}


def test_a_block_may_have_fewer_pairs_or_others():
    blocks = [{"arm": "full"}, {"arm": "random", "seed.pair": 2}, {"arm": "longest", "seed.pair": [3, 5]}]
    cells = expand(blocks, {}, 3)
    assert [(c["arm"], c["seed.pair"]) for c in cells] == [
        ("full", 0), ("random", 0), ("full", 1), ("random", 1), ("full", 2), ("longest", 3), ("longest", 5),
    ]  # fmt: skip
    # never more than the experiment has, which `debug=tiny` lowers
    assert [(c["arm"], c["seed.pair"]) for c in expand(blocks[:2], {}, 1)] == [("full", 0), ("random", 0)]
    # what is asked for on the command line is taken from what there is
    asked = expand(blocks, {"seed.pair": [1, 3]}, 3)
    assert [(c["arm"], c["seed.pair"]) for c in asked] == [("full", 1), ("random", 1), ("full", 3), ("longest", 3)]


def test_without_blocks_the_axes_are_all_there_is():
    assert expand([], {"noise.rate": [0.1], "seed.pair": [3]}, 6) == [{"noise.rate": 0.1, "seed.pair": 3}]


def test_companions_are_found_under_the_data_root(make, tmp_path):
    (tmp_path / "alpaca").mkdir()
    (tmp_path / "alpaca" / "rows.json").write_text('[{"instruction": "a", "input": "", "output": "b"}]')
    (tmp_path / "chosen.json").write_text('[{"instruction": "a", "input": "", "output": "b"}]')
    given = ["data=alpaca", f"data.root={tmp_path}", "data.path=alpaca/rows.json"]
    config = make(*given, "selection=from_file", "selection.path=chosen.json")
    check_paths(config)
    assert located(config, "alpaca/rows.json") == str(tmp_path / "alpaca" / "rows.json")
    assert located(config, "hub:a/b") == "hub:a/b"
    by_name = run_id(config)
    (tmp_path / "chosen.json").write_text('[{"instruction": "a", "input": "", "output": "c"}]')
    assert run_id(config) != by_name  # what is found is named by its content
    with pytest.raises(UserError, match=r"selection\.path=gone\.json: no such file here or under data\.root="):
        check_paths(make(*given, "selection=from_file", "selection.path=gone.json"))


def test_newer_keys_that_are_not_set_are_no_part_of_a_run(make):
    tree = essence(make("data=alpaca", "evaluation=references"))
    assert not {"drop_asked", "side", "max_length_ratio"} & set(tree["data"])
    assert not {"items", "max_new_tokens"} & {name for s in tree["evaluation"]["suites"].values() for name in s}
    assert essence(make("data=alpaca", "data.drop_asked=true"))["data"]["drop_asked"] is True
    drawn = essence(make("selection=from_file", "selection.path=x.json", "selection.k=4", "seed.pair=3"))
    assert drawn["seed"]["select"] == 3


def test_a_side_belongs_to_pairs_and_to_nothing_else(composed):
    for overrides, said in (
        (["data=car", "data.side=null"], "data.side=null: whose responses"),
        (["data=alpaca", "+data.side=chosen"], "data.side=chosen: whose responses"),
        (["data=alpaca", "+data.max_length_ratio=2.0"], "only data=car has two"),
    ):
        with pytest.raises(UserError, match=said):
            validate(composed(*overrides))
