"""wandb as a mirror of the store, never the record: a run is written to it once, when the run is over.

Doing it at the end costs about 0.3 s a run (1.1 s the first time in a process), cannot slow or stop training, and
loses nothing to a crash, since the store has every line already. `wandb leet <store>/wandb` is the local dashboard.
"""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import store
from experiments.config import Config

_unreachable = False  # an online server that did not answer once is not waited for again in this process


def mirror(
    config: Config,
    folder: Path,
    record: Mapping[str, Any],
    *,
    experiment: str | None = None,
    quoted: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write a finished run to wandb as `config.tracking` says. Never raises.

    Args:
        folder: the run's folder in the store; its `metrics.jsonl` becomes the curves, drawn over `tokens`.
        experiment: the group; runs that belong to none are grouped by project alone.
        quoted: what the literature says, each {id, metric ("suite/metric"), value, source}: a constant series that is
            drawn on the same chart as the run's own curve of that metric.
    """
    if config.tracking.mode == "none":
        return
    try:
        _write(config, folder, record, experiment, quoted)
    except Exception as error:
        print(f"wandb: {' '.join(str(error).split())}; the store in {folder} is complete without it", file=sys.stderr)


def _write(
    config: Config, folder: Path, record: Mapping[str, Any], experiment: str | None, quoted: Sequence[Mapping[str, Any]]
) -> None:
    root = Path(config.store.root).resolve()
    for name in ("CACHE", "CONFIG", "DATA", "ARTIFACT"):  # nothing in the home or project folder
        os.environ.setdefault(f"WANDB_{name}_DIR", str(root / "wandb" / "private"))
    os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")  # it would advertise itself where a judge is used
    import wandb

    run = _init(wandb, config, root, record, experiment)
    try:
        run.define_metric("tokens", hidden=True)
        run.define_metric("*", step_metric="tokens")
        curves = _curves(folder)
        claims = [claim for claim in quoted if math.isfinite(claim["value"])]
        for tokens, values in curves.items():
            constants = {f"quoted/{claim['id']}": claim["value"] for claim in claims}
            run.log({"tokens": tokens, **values, **constants})
        for claim in claims:
            xs = [tokens for tokens, values in curves.items() if claim["metric"] in values]
            ys = [[curves[x][claim["metric"]] for x in xs], [claim["value"]] * len(xs)]
            keys = [claim["metric"], f"quoted: {claim['source']}"]
            run.log({f"claims/{claim['id']}": wandb.plot.line_series(xs, ys, keys, claim["id"], "tokens")})
        run.summary.update(_summary(record))
    finally:
        run.finish()


def _init(wandb: Any, config: Config, root: Path, record: Mapping[str, Any], experiment: str | None) -> Any:
    global _unreachable
    seed = config.seed
    online = config.tracking.mode == "online" and not _unreachable
    for mode in ("online", "offline") if online else ("offline",):
        settings = wandb.Settings(  # fresh: one run's settings must not leak into the next
            mode=mode,
            root_dir=str(root),
            host="",
            silent=True,
            console="off",
            init_timeout=20,
            login_timeout=20,
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
                project=config.tracking.project,
                entity=config.tracking.entity,
                id=record["run_id"],
                name=f"{config.arm} pair {seed.pair}",
                group=experiment,
                job_type=config.arm,
                tags=[config.data.name, config.model.kind, f"noise={config.noise.kind}"],
                config=store.redact(config.model_dump(mode="json", exclude={"store", "tracking"})),
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
