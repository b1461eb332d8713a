"""A sweep on a Ray cluster of this machine."""

import importlib.util

import pytest

from tests.cluster.test_slurm import ended, records, start

pytestmark = pytest.mark.cluster


def test_a_sweep_on_ray(tmp_path):
    if importlib.util.find_spec("ray") is None:
        pytest.fail("ray is not installed: pip install -e '.[ray]'")
    arguments = ("experiment=quickstart", "arm=full,random", "experiment.pairs=2", "tracking=none", "launcher=ray")
    code, out, err = ended(start(tmp_path, *arguments))
    assert code == 0, out + err
    assert len(records(tmp_path / "runs")) == 4
    assert "4 done, 0 to do" in ended(start(tmp_path, *arguments))[1]
