"""A sweep on a Ray cluster of this machine."""

import importlib.util

import pytest

from tests.cluster.test_slurm import ended, records, start

pytestmark = pytest.mark.cluster


def test_a_sweep_on_ray_and_a_run_whose_process_is_killed(tmp_path):
    if importlib.util.find_spec("ray") is None:
        pytest.fail("ray is not installed: pip install -c constraints-ray.txt -e '.[ray]'")
    arguments = ("experiment=quickstart", "arm=full,random", "experiment.pairs=2", "tracking=none", "launcher=ray")
    code, out, err = ended(start(tmp_path, *arguments, FAKE_DEATH="random:1"))
    assert code == 1, out + err
    assert "1 of 4 runs missing" in err
    assert "its process was killed" in err
    assert len(records(tmp_path / "runs")) == 3
    code, out, err = ended(start(tmp_path, *arguments))
    assert code == 0, out + err
    assert "3 done, 1 to do" in out
    assert len(records(tmp_path / "runs")) == 4
