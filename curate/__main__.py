"""Score a file of instruction data and keep the good rows.

python -m curate data.path=IN.json scorer=length selection=top_k selection.k=9000 out.path=OUT.json
python -m curate data.path=IN.json scorer=reward_model scorer.model=OpenAssistant/reward-model-deberta-v3-large-v2 \
    selection=threshold selection.threshold=1.5 out.path=OUT.jsonl out.rejected=REJECTED.jsonl
python -m curate ... shards=64 launcher=slurm          the rows are scored in 64 jobs; the output is the same
"""

import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from joblib import effective_n_jobs
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from curate.cluster import cluster_config
from curate.config import (
    DataConfig,
    DecontaminateConfig,
    DedupConfig,
    DuplicationConfig,
    NoiseConfig,
    RewriteConfig,
    ScorerConfig,
    SelectionConfig,
    explain,
)  # fmt: skip
from curate.errors import UserError, check_has_keys, group_mistake
from curate.job import Job, check_imported, curate
from curate.layouts import LAYOUTS
from curate.writing import check_output

CONF = Path(__file__).resolve().parents[1] / "conf"
Group = TypeVar("Group", bound=BaseModel)
GROUPS: dict[str, type[BaseModel]] = {
    "data": DataConfig, "noise": NoiseConfig, "dedup": DedupConfig, "decontaminate": DecontaminateConfig,
    "scorer": ScorerConfig, "selection": SelectionConfig, "rewrite": RewriteConfig, "duplication": DuplicationConfig,
}  # fmt: skip


def check(config: DictConfig) -> Job:
    """The job that a config describes; raises UserError for the first thing wrong. Opens no data."""
    values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    for name in ("out", "score"):
        check_has_keys(name, values[name])
    groups: dict[str, Any] = {name: _group(kind, name, values) for name, kind in GROUPS.items()}
    data, scorer, layout = groups["data"], groups["scorer"], values["out"]["layout"]
    if type(values["seed"]) is not int or values["seed"] < 0:
        raise UserError(f"seed={values['seed']}: choose a whole number from 0 on")
    if data.path is None:
        raise UserError("data.path=null: which file? set data.path=FILE (.json, .jsonl, .csv or .parquet)")
    if scorer.kind == "reward_model" and scorer.model is None:
        raise UserError("scorer.model=null: which reward model? set scorer.model to a folder or a model of the hub")
    if layout not in LAYOUTS:
        raise UserError(f"out.layout={layout}: choose one of {', '.join(LAYOUTS)}")
    if not isinstance(values["out"]["audit"], bool):
        raise UserError(f"out.audit={values['out']['audit']}: choose true or false")
    if values["out"]["path"] is None:
        raise UserError("out.path=null: where should the kept rows go? set out.path=FILE")
    out = Path(str(values["out"]["path"]))
    rejected = None if values["out"]["rejected"] is None else Path(str(values["out"]["rejected"]))
    named = [("data.path", Path(data.path)), ("out.path", out)] + ([("out.rejected", rejected)] if rejected else [])
    for at, (key, path) in enumerate(named):
        for other, taken in named[:at]:
            if path.resolve() == taken.resolve():
                raise UserError(f"{key}={path}: is {other} too; name another file")
        if at > 0:
            check_output(path, key, layout if key == "out.path" else "rows")
    for key, value in (("cache", values["cache"]), ("score.import", values["score"]["import"])):
        if value == "":
            raise UserError(f"{key}=: is empty; name a path, or say {key}=null")
    imported = None if values["score"]["import"] is None else Path(str(values["score"]["import"]))
    check_imported(imported)
    cache = None if values["cache"] is None else Path(str(values["cache"]))
    cluster, shards = cluster_config(values["cluster"]), values["shards"]
    if type(shards) is not int or shards < 1:
        raise UserError(f"shards={shards}: choose a whole number from 1 on")
    if shards > 1 or cluster:
        if cache is None:
            raise UserError("cache=null: the scores of shards meet there; name a folder")
        if any(one.kind == "judge" for one in scorer.models()):
            raise UserError(f"shards={shards}: one process asks a judge, and keeps its max_cost; leave it at 1")
    return Job(
        **groups, source=data.path, out=out, rejected=rejected, layout=layout, audit=values["out"]["audit"],
        encoder=values["out"]["encoder"],
        imported=imported, cache=cache, seed=values["seed"],
        shards=shards, processes=_processes(), cluster=cluster,
    )  # fmt: skip


def _processes() -> int:
    """How many processes `launcher` has side by side on this machine."""
    if not HydraConfig.initialized():
        return 1
    hydra_config = HydraConfig.get()
    if (launcher := hydra_config.runtime.choices.get("launcher")) == "ray":
        raise UserError(f"launcher={launcher}: curation has no use for it; choose serial, local or slurm")
    n_jobs = hydra_config.launcher.get("n_jobs")
    return effective_n_jobs(n_jobs) if n_jobs else 1


def _group(kind: type[Group], name: str, values: dict[str, Any]) -> Group:
    try:
        return kind.model_validate(values[name])
    except ValidationError as error:
        raise UserError(explain(error, name)) from None


@hydra.main(version_base=None, config_path=str(CONF), config_name="curate")
def _app(config: DictConfig) -> None:
    try:
        print(curate(check(config)))
    except UserError as error:
        _fail(str(error))  # here, since Hydra would put a line of its own before it


def main() -> None:
    """Run the Hydra app; a user's mistake is one line on stderr and exit code 2."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands its errors on instead of printing them at length
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        _app()
    except (HydraException, OmegaConfBaseException) as error:
        message = re.split(r"Config search path|full_key|See https", str(error))[0]
        _fail(re.sub(r"To append to your config.*", "There is no such key; --help lists them", message))
    except ValueError as error:
        if (message := group_mistake(error, sys.argv[1:], CONF)) is None:
            raise
        _fail(message)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
