"""Loading: what equal folders share, and what they do not."""

from train.models import load_causal_lm, new_llama, word_tokenizer

SIZES = {"hidden": 8, "layers": 1, "heads": 2, "mlp": 8, "positions": 16}


def saved(folder, words, seed):
    tokenizer = word_tokenizer(["<pad>", "<eos>", "<unk>", *words])
    new_llama(tokenizer, **SIZES, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_folders_whose_tokenisers_are_written_alike_share_one(tmp_path):
    loaded = [
        load_causal_lm(saved(tmp_path / name, words, seed))
        for seed, (name, words) in enumerate({"a": ("x", "y"), "b": ("x", "y"), "c": ("y", "z", "x")}.items())
    ]
    (one, first), (two, second), (_, third) = loaded
    assert first is second and first is not third
    assert (first.convert_tokens_to_ids("x"), third.convert_tokens_to_ids("x")) == (3, 5)
    assert one is not two
    assert (one.get_input_embeddings().weight != two.get_input_embeddings().weight).any()
    (tmp_path / "b" / "tokenizer_config.json").write_text((tmp_path / "a" / "tokenizer_config.json").read_text() + " ")
    assert load_causal_lm(tmp_path / "b")[1] is not first
