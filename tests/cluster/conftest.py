import importlib.util

import pytest

from tests.cluster import engine


@pytest.fixture(scope="session")
def slurm():
    """The folder of a running SLURM's logs. What is missing is a failure: whoever asks for the marker wants it run."""
    if absent := engine.absent():
        pytest.fail(f"SLURM is not installed (no {', '.join(absent)}): apt-get install slurm-wlm munge")
    if importlib.util.find_spec("submitit") is None:
        pytest.fail("submitit is not installed: pip install -e '.[cluster]'")
    with engine.slurm() as folder:
        yield folder
        print((folder / "slurmctld.log").read_text()[-6000:])
