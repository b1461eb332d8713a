import pytest
from hydra import compose, initialize_config_dir

from experiments.config import validate
from experiments.run import CONF


@pytest.fixture
def composed():
    """composed(*overrides): Hydra's tree, as the command line would make it."""

    def compose_tree(*overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", list(overrides))

    return compose_tree


@pytest.fixture
def configured(composed, tmp_path):
    """configured(*overrides): the checked config of one run, its store in a temporary folder."""

    def make(*overrides):
        return validate(composed(f"store.root={tmp_path}", *overrides))

    return make
