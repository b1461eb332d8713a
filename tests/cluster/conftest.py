import importlib.util

import pytest

from tests.cluster import engine
from tests.curate.conftest import reward_model_folder, tokenizer  # noqa: F401 (fixtures)


@pytest.fixture(scope="session")
def slurm():
    """The folder of a running SLURM's logs. What is missing is a failure: whoever asks for the marker wants it run."""
    if absent := engine.absent():
        pytest.fail(f"SLURM is not installed (no {', '.join(absent)}): apt-get install slurm-wlm munge")
    if importlib.util.find_spec("submitit") is None:
        pytest.fail("submitit is not installed: pip install -e '.[cluster]'")
    with engine.slurm() as folder:
        yield folder
        lines = (folder / "slurmctld.log").read_text().splitlines()
        print("\n".join(line for line in lines if "Job" in line and "error" not in line))
