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


@pytest.fixture
def few_drawings(monkeypatch):
    """Leaves out of a report's drawing what takes most of it: a panel for each arm, and PNG."""
    from matplotlib import pyplot

    from experiments.report import curves, figures, suite_curves

    def save(figure, path, **options):
        pyplot.close(figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    monkeypatch.setattr(figures, "_save", save)
    monkeypatch.setattr(curves, "_panels", lambda content, width, colours: pyplot.figure(figsize=(width, 1)))
    monkeypatch.setattr(
        suite_curves, "_figure", lambda panels, names, width, colours: pyplot.figure(figsize=(width, 1))
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def make(composed, root):
    """make(*overrides): the checked config of one run at its smallest, its store shared by a file's tests."""

    def config(*overrides):
        return validate(composed("debug=tiny", f"store.root={root}", *overrides))

    return config
