"""wandb as a mirror of the store, never the record: a run is written to it once, when the run is over.

Doing it at the end costs about 0.3 s a run (1.1 s the first time in a process), cannot slow or stop training, and
loses nothing to a crash, since the store has every line already. What an experiment came to is written after its
report, by `tracking_report`. conf/tracking/README.md says how to look at it and send it.
"""

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments import store
from experiments.config import Config, TrackingConfig

LONGEST = 64  # characters that wandb takes in a tag, and shows of a job type
PATIENCE_S = 120  # for a server that stops answering while the last of a run is sent

_unreachable = False  # an online server that did not answer once is not waited for again in this process


def mirror(
    config: Config,
    folder: Path,
    record: Mapping[str, Any],
    *,
    experiment: str | None = None,
    quoted: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write a finished run to wandb as `config.tracking` says. Never raises; of what fails, the rest is written.

    Args:
        folder: the run's folder in the store; its `metrics.jsonl` becomes the curves, drawn over `tokens`.
        experiment: the group; runs that belong to none are grouped by project alone.
        quoted: what the literature says, each {id, metric ("suite/metric"), value, source}: a constant series that is
            drawn on the same chart as the run's own curve of that metric.
    """
    if config.tracking.mode == "none":
        return
    whole = f"the store in {folder} is complete without it"
    about = {
        "id": record["run_id"],
        "name": f"{config.arm} pair {config.seed.pair}",
        "group": experiment,
        "job_type": config.arm[:LONGEST],
        "tags": _tags(config),
        "config": store.redact(config.model_dump(mode="json", exclude={"store", "tracking"})),
    }
    with warned("wandb", whole), opened(config.tracking, Path(config.store.root), about) as run:
        curves, finite = _curves(folder), [claim for claim in quoted if math.isfinite(claim["value"])]
        with warned("wandb: curves", whole):
            _log_curves(run, curves, finite)
        with warned("wandb: quoted figures", whole):
            _log_quoted(run, curves, finite)
        with warned("wandb: summary", whole):
            run.summary.update(_summary(record))
        with warned("wandb: subset", whole):
            _log_subset(run, folder, record)
        if config.tracking.models:
            with warned("wandb: model", whole):
                _log_model(run, folder, record)


@contextmanager
def warned(what: str, instead: str) -> Iterator[None]:
    """Inside, an error becomes one line on stderr: `what` failed and why, and what there is `instead`."""
    try:
        yield
    except Exception as error:
        print(f"{what}: {' '.join(str(error).split()) or type(error).__name__}; {instead}", file=sys.stderr)


@contextmanager
def opened(tracking: TrackingConfig, root: Path, about: Mapping[str, Any]) -> Iterator[Any]:
    """A wandb run under `root`/wandb, finished at the end; offline where `tracking` asks for a server in vain.

    Args:
        root: the store.
        about: arguments of `wandb.init`: id, name, group, job_type, tags, config.
    """
    for name in ("CACHE", "CONFIG", "DATA", "ARTIFACT"):  # nothing in the home or project folder
        os.environ.setdefault(f"WANDB_{name}_DIR", str(root.resolve() / "wandb" / "private"))
    os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")  # it would advertise itself where a judge is used
    run = _init(tracking, root.resolve(), about)
    try:
        yield run
    finally:
        run.finish()


def _init(tracking: TrackingConfig, root: Path, about: Mapping[str, Any]) -> Any:
    global _unreachable
    import wandb

    online = tracking.mode == "online" and not _unreachable
    for mode in ("online", "offline") if online else ("offline",):
        settings = wandb.Settings(  # fresh: one run's settings must not leak into the next
            mode=mode,
            root_dir=str(root),
            host="",
            silent=True,
            console="off",
            init_timeout=20,
            login_timeout=20,
            finish_timeout=PATIENCE_S,
            save_code=False,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        try:
            if mode == "online" and not _logged_in():
                raise ConnectionError("no API key; `wandb login` stores one")
            return wandb.init(
                project=tracking.project,
                entity=tracking.entity,
                **about,
                settings=settings,
                resume="allow" if mode == "online" else None,
                reinit="create_new",
            )
        except Exception as error:
            if mode == "offline":
                raise
            _unreachable = True
            reason = " ".join(str(error).split())
            print(f"wandb: not online ({reason}); offline instead, `wandb sync` uploads it later", file=sys.stderr)
    raise AssertionError("unreachable")


def _logged_in() -> bool:
    """Whether wandb has a key to log in with; without one it would ask for it."""
    import netrc

    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return bool(netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def _tags(config: Config) -> list[str]:
    """What runs are picked by: data, model, noise, selection, duplication."""
    kinds = {"noise": config.noise.kind, "selection": config.selection.kind, "duplication": config.duplication.mode}
    tags = [config.data.name, config.model.kind, *(f"{key}={kind}" for key, kind in kinds.items())]
    return [tag[:LONGEST] for tag in tags]


def _log_curves(run: Any, curves: Mapping[int, Mapping[str, float]], quoted: Sequence[Mapping[str, Any]]) -> None:
    """Every metric over tokens, its least and greatest value in the summary, and beside it what was quoted."""
    run.define_metric("tokens", hidden=True)
    run.define_metric("*", step_metric="tokens")
    for name in sorted({name for values in curves.values() for name in values}):
        run.define_metric(name, step_metric="tokens", summary="min,max")
    constants = {f"quoted/{claim['id']}": claim["value"] for claim in quoted}
    for tokens, values in curves.items():
        run.log({"tokens": tokens, **values, **constants})


def _log_quoted(run: Any, curves: Mapping[int, Mapping[str, float]], quoted: Sequence[Mapping[str, Any]]) -> None:
    """A chart for each quoted figure: the run's own curve of that metric, and the figure."""
    import wandb

    for claim in quoted:
        xs = [tokens for tokens, values in curves.items() if claim["metric"] in values]
        ys = [[curves[x][claim["metric"]] for x in xs], [claim["value"]] * len(xs)]
        keys = [claim["metric"], f"quoted: {claim['source']}"]
        run.log({f"claims/{claim['id']}": wandb.plot.line_series(xs, ys, keys, claim["id"], "tokens")})


def _log_subset(run: Any, folder: Path, record: Mapping[str, Any]) -> None:
    """Which rows were trained on: ids and hashes. Arms with the same rows share one version of one artifact."""
    facts = ("rows", "unique_rows", "subset_hash", "subset_noise_rate", "duplicate_share")
    about = {name: record["data"][name] for name in facts if name in record["data"]}
    _log_artifact(run, f"subset-{record['data']['subset_hash']}", "subset", about, folder / store.SUBSET)


def _log_model(run: Any, folder: Path, record: Mapping[str, Any]) -> None:
    about = {"run_id": record["run_id"], "subset_hash": record["data"]["subset_hash"]}
    _log_artifact(run, f"model-{record['run_id']}", "model", about, folder / "model")


def _log_artifact(run: Any, name: str, kind: str, about: Mapping[str, Any], content: Path) -> None:
    """`content` is a file or a folder of a finished run: it will not change, so no copy is made to be sent."""
    import wandb

    artifact = wandb.Artifact(name, type=kind, metadata=dict(about))
    (artifact.add_dir if content.is_dir() else artifact.add_file)(str(content), policy="immutable")
    run.log_artifact(artifact)


def _curves(folder: Path) -> dict[int, dict[str, float]]:
    """tokens -> {"suite/metric": value}, in order."""
    curves: dict[int, dict[str, float]] = {}
    for row in store.read_metrics(folder):
        if row["value"] is not None:
            curves.setdefault(row["tokens"], {})[f"{row['suite']}/{row['metric']}"] = row["value"]
    return dict(sorted(curves.items()))


def _summary(record: Mapping[str, Any]) -> dict[str, float]:
    """The figures at the best validation point and at the end, and what they cost."""
    flat: dict[str, float] = {}
    for point in ("best_val", "end"):
        for suite, metrics in record["metrics"].get(point, {}).items():
            flat |= {f"{point}/{suite}/{name}": cell["value"] for name, cell in metrics.items()}
    flat |= {f"data/{key}": value for key, value in record.get("data", {}).items() if isinstance(value, (int, float))}
    return flat | {f"cost/{key}": value for key, value in record["cost"].items() if isinstance(value, (int, float))}
