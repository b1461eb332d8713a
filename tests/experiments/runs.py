"""One run without a sweep around it."""

from experiments import pipeline, store
from experiments.config import run_id


def run(config):
    """Its record and its folder; done only once in a store."""
    folder = store.run_folder(config.store.root, run_id(config))
    if store.read(folder) is None:
        store.open_run(folder, config.model_dump(mode="json"))
        pipeline.run(config, folder)
    return store.read(folder), folder
