"""Rows to batches: labels where they belong, nothing else in the loss."""

import torch
from torch.nn import functional

from train.batches import IGNORED, Row, collate, encode, opening, response_logits, response_loss

ROWS = [Row("<q> w1 w2 <a>", "ok : w3"), Row("<q> w4 <a>", "ok : w5 w6 w7")]


def test_labels_stand_on_response_and_end_only(tokenizer):
    first = encode(tokenizer, ROWS, 64)[0]
    ids = tokenizer.convert_tokens_to_ids(["<q>", "w1", "w2", "<a>", "ok", ":", "w3", "<eos>"])
    assert first["input_ids"] == ids
    assert first["labels"] == [IGNORED] * 4 + ids[4:]


def test_a_long_response_is_cut_from_the_right_and_a_long_prompt_from_the_left(tokenizer):
    long = [Row("<q> w1 <a>", " ".join(["w2"] * 50)), Row(" ".join(f"w{i}" for i in range(40)), "ok : w3")]
    cut, left = encode(tokenizer, long, 12)
    assert len(cut["input_ids"]) == 12 and cut["labels"][:3] == [IGNORED] * 3
    assert len(left["input_ids"]) == 12
    assert tokenizer.decode(left["input_ids"]).endswith("w39 ok : w3 <eos>")


def test_a_text_begins_as_its_tokeniser_begins_texts(tokenizer):
    from tokenizers import processors

    assert opening(tokenizer) == []
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    assert opening(tokenizer) == []  # there is one, and no text begins with it
    start = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", start)]
    )
    row = encode(tokenizer, ROWS, 64)[0]
    ids = tokenizer.convert_tokens_to_ids(["<s>", "<q>", "w1", "w2", "<a>", "ok", ":", "w3", "<eos>"])
    assert row == {"input_ids": ids, "labels": [IGNORED] * 5 + ids[5:]}
    long = encode(tokenizer, [Row(" ".join(f"w{i}" for i in range(40)), "ok : w3")], 12)[0]["input_ids"]
    assert len(long) == 12 and long[0] == start and tokenizer.decode(long).endswith("w39 ok : w3 <eos>")


def test_padding_is_masked(tokenizer):
    batch = collate(encode(tokenizer, ROWS, 64), tokenizer.pad_token_id)
    assert batch["input_ids"].shape == (2, 9) == batch["labels"].shape
    assert batch["attention_mask"].sum(1).tolist() == [8, 9]
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()


def test_loss_equals_the_full_projection_and_ignores_the_prompt(tokenizer, make_model):
    model = make_model()
    batch = collate(encode(tokenizer, ROWS, 64), tokenizer.pad_token_id)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    wanted = functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(response_loss(model, batch), wanted)
    picked, targets = response_logits(model, batch)
    assert len(picked) == len(targets) == (batch["labels"] != IGNORED).sum()


def test_padding_does_not_change_a_rows_loss(tokenizer, make_model):
    model = make_model()
    alone = collate(encode(tokenizer, ROWS[:1], 64), tokenizer.pad_token_id)
    both = collate(encode(tokenizer, [ROWS[0], Row("<q> w4 <a>", " ".join(["w5"] * 30))], 64), tokenizer.pad_token_id)
    both["labels"][1] = IGNORED
    torch.testing.assert_close(response_loss(model, both), response_loss(model, alone), atol=1e-5, rtol=1e-5)
