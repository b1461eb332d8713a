"""Scoring in several processes: each scores a share of the rows into the common cache, and then all scores are there.

What is left for the process that selects is what it does alone too, with the scores from the cache: so that the output
is the same, byte for byte. Shares hold whole portions of the rows, and hence the same batches (`cache.shares`); what
may still differ in the last bits is arithmetic on another processor or with another number of threads.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow.parquet
from datasets import Dataset
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from curate.cluster import ClusterConfig, run_jobs
from curate.config import ScorerConfig
from curate.errors import UserError
from curate.example import pool_of, take
from curate.progress import progress
from curate.scoring import score
from curate.scoring.cache import restricted, shares


def score_shards(
    pool: Dataset,
    scorer: ScorerConfig,
    *,
    seed: int,
    template: Mapping[str, str],
    cache: Path,
    shards: int,
    processes: int,
    cluster: ClusterConfig | None,
) -> None:
    """Score what of the pool has no score in `cache` yet, in `shards` parts: jobs of a cluster, or processes here.

    `processes` parts are done side by side where there is no cluster. What needs no model and what is measured between
    rows (embeddings) is no work for shards and is left to the caller.

    Raises UserError for a scorer that cannot be used, and for a shard that died; the scores of the others are kept.
    """
    with restricted() as missing:
        score(pool, scorer, seed=seed, template=template, cache=cache)
    if not missing:
        return
    folder = cache.resolve() / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(mkdtemp(prefix="shards-", dir=folder))
    try:
        tasks: list[tuple] = []
        for key, rows in missing.items():
            for share in shares(rows, shards):
                path = work / f"{len(tasks)}.parquet"
                _write(path, pool, share)
                tasks.append((path, scorer, seed, dict(template), cache.resolve(), key))
        print(f"scoring {sum(map(len, missing.values()))} rows in {len(tasks)} shards", file=sys.stderr)
        with progress("scoring shards") as report:
            if cluster is None:
                side_by_side = Parallel(n_jobs=min(processes, len(tasks)), return_as="generator")
                errors: list[str | None] = []
                for error in side_by_side(delayed(score_shard)(*task) for task in tasks):
                    errors.append(error)
                    report(len(errors), len(tasks))
            else:
                ended = run_jobs(
                    score_shard, tasks, cluster, folder, name="curate", per_job=1, say=_say, progress=report
                )
                errors = [one.reason or one.value for one in ended]
    except TerminatedWorkerError:
        raise UserError(
            f"shards={shards}: a process was killed (out of memory?); scores so far are kept; go on with fewer side by"
            " side: hydra.launcher.n_jobs=1"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if failed := [error for error in errors if error]:
        raise UserError(f"{len(failed)} of {len(tasks)} shards: {failed[0]}; scores so far are kept: the same goes on")


def score_shard(
    path: Path, scorer: ScorerConfig, seed: int, template: dict[str, str], cache: Path, key: str
) -> str | None:
    """Score the rows in `path` into the cache, by the part of `scorer` that keeps its scores under `key`.

    Returns a user's mistake as one line, if there is one.
    """
    pool = pool_of(pyarrow.parquet.read_table(path))
    try:
        with restricted(key):
            score(pool, scorer, seed=seed, template=template, cache=cache)
    except UserError as error:
        return str(error)
    return None


def _write(path: Path, pool: Dataset, rows: list[int]) -> None:
    """The rows in their order, which is not that of the pool."""
    places = np.array(rows)
    some = take(pool, np.sort(places)).with_format("arrow")[:]
    pyarrow.parquet.write_table(some.take(np.argsort(np.argsort(places))), path)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
