"""The page that takes a user through a claim of her own, done as it says."""

import re

from synthetic import BEST, quickstart

from experiments import claim_files, claims
from experiments import table as tables

PAGE = (claim_files.FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_page_is_done_as_it_says(tmp_path):
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    [name] = re.findall(r"Write `conf/claim/(\w+)\.yaml`", PAGE)
    (tmp_path / f"{name}.yaml").write_text(text)
    [claim] = claim_files.load([name], tmp_path)
    cells, records = quickstart()
    claim_files.check([claim], cells)
    [entry] = claims.judge([claim], tables.runs_table(cells, records, BEST), best=BEST, experiment="quickstart")
    assert entry["verdict"] == "contradicted"  # .52 against .82 in these planted runs
    assert f"experiment.claims=[{name}]" in PAGE


def test_the_page_names_every_key():
    for key in claim_files.Claim.model_fields:
        assert key == "title" or f"`{key}`" in PAGE
