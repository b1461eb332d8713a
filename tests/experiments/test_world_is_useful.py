"""The embedded world measures something: a base that knows and cannot answer, suites with room in both directions."""

import pytest
import torch

from experiments import pipeline, prepare, store
from experiments.config import run_id, validate

OOD = ("entity", "wording", "composition")


@pytest.mark.soak
@pytest.mark.parametrize("base", [0, 1, 2])
def test_suites_have_room_in_both_directions(composed, tmp_path_factory, base):
    """About three minutes a base: pre-training, then all rows, none of them wrong, at the default sizes."""
    torch.set_num_threads(1)
    root = tmp_path_factory.getbasetemp() / "useful"
    config = validate(composed("noise=none", "tracking=none", f"seed.pair={base}", f"store.root={root}"))
    folder = store.run_folder(root, run_id(config))
    store.open_run(folder, config.model_dump(mode="json"))
    record = pipeline.run(config, folder)
    before, end = record["metrics"]["step:0"], record["metrics"]["end"]
    known = before[prepare.KNOWS]
    assert known["top"]["value"] > 0.95
    assert known["shown"]["value"] > 0.85
    assert known["never"]["value"] < 0.15
    for suite in OOD:
        assert before[suite]["em"]["value"] < 0.05, suite
        assert 0.3 < end[suite]["em"]["value"] < 0.95, suite
        assert before[suite]["majority"]["value"] < 0.3, suite
