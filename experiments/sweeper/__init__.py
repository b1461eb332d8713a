"""Hydra's sweeper for experiments: plan, prepare, run, report.

Installed as `hydra_plugins.paired_sweeper`, the name space in which Hydra allows sweepers.
"""

import copy
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.paired_sweeper.forecast import describe
from hydra_plugins.paired_sweeper.made_of import MADE_OF, made_of, verdicts
from hydra_plugins.paired_sweeper.plan import Plan, make_plan
from hydra_plugins.paired_sweeper.progress import Monitor, named
from joblib import effective_n_jobs
from joblib.externals.loky.process_executor import TerminatedWorkerError
from omegaconf import DictConfig, OmegaConf, read_write
from rich.console import Console
from rich.text import Text

from curate.cluster import check_cluster, cluster_config
from curate.errors import check_has_keys
from experiments import UserError, claim_files, cluster, store, workers
from experiments.claim_files import Claim
from experiments.config import OF_NO_MATTER, ExperimentConfig, plain, validate_experiment
from experiments.table import Best, cells_frame

ConfigStore.instance().store(
    group="hydra/sweeper",
    name="paired",
    node={"_target_": "hydra_plugins.paired_sweeper.PairedSweeper"},
    provider="quality-vs-quantity",
)

WIDTH = 120  # of tables where there is no terminal to ask
PLANS = ("run", "only", "report")
PREPARE = "prepare"  # the plan of a job that the sweep puts before its runs
FIGURES = ("page", "paper")


class PairedSweeper(Sweeper):
    """Expands an experiment to runs, launches those that are missing, and reports on all."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Plan and do what `plan` says; leaves by SystemExit with a code other than 0 unless all is there."""
        assert self.config is not None
        assert self.hydra_context is not None
        console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
        if self.config.plan not in PLANS:
            raise UserError(f"plan={self.config.plan}: no such plan; use one of {', '.join(PLANS)}")
        if self.config.figures not in FIGURES:
            raise UserError(f"figures={self.config.figures}: no such choice; use one of {', '.join(FIGURES)}")
        for name in ("report", "store"):
            check_has_keys(name, self.config[name])
        if names := plain(self.config)["report"]["compare"]:
            from experiments.report import comparison

            console.print(f"comparison: {comparison.build(Path(self.config.store.root), names)}")
            return
        experiment = validate_experiment(self.config)
        self.cluster = cluster_config(plain(self.config).get("cluster"))
        loader = self.hydra_context.config_loader
        plan = make_plan(loader, self.config, arguments)
        claims = _claims(plan, experiment.claims)
        store.check_writable(plan.root)
        outcomes = self._stage(plan, experiment, console)
        if wanted := self._second_stage(plan, claims, experiment, console):
            plan = make_plan(loader, _with_pairs(self.config, wanted), arguments)
            outcomes |= self._stage(plan, experiment, console)
        if self.config.plan == "only":
            self._power(plan, claims, self._jobs(), console)
            return
        without = self._missing(plan, outcomes)
        self._report(plan, experiment, claims, without, console)
        if code := self._exit_code(plan, without, outcomes, console):
            raise SystemExit(code)

    def _stage(self, plan: Plan, experiment: ExperimentConfig, console: Console) -> dict[str, dict[str, Any]]:
        """Say what `plan` takes and, if runs are to be made, make those that are missing; returns their outcomes."""
        assert self.config is not None
        for run_id, reason in store.set_aside(plan.root, plan.configs).items():
            console.print(f"{run_id}: {reason}; set aside as {store.CORRUPT}, to be run again")
        done = store.finished(plan.root)
        missing = [run_id for run_id in plan.configs if run_id not in done]
        jobs = self._jobs()
        at_once = self.cluster.jobs_at_once if self.cluster else jobs
        console.print(describe(plan, missing, at_once, experiment.name, here=self.cluster is None))
        if not missing or self.config.plan != "run":
            return {}
        try:
            return self._run(plan, missing, console)
        except BaseException as error:
            if not interrupted(error):
                raise
            kept = len(store.finished(plan.root) & plan.configs.keys())
            console.print(
                f"\nstopped: {kept} of {len(plan.configs)} runs are done and kept; go on with\n    {command()}"
            )
            raise SystemExit(130) from None

    def _second_stage(
        self, plan: Plan, claims: list[Claim], experiment: ExperimentConfig, console: Console
    ) -> int | None:
        """How many pairs there are to be in all, if more than the first ones; those alone decide it, at every rerun."""
        if experiment.pairs_at_most is None:
            return None
        if plan.configs.keys() - store.finished(plan.root):
            console.print(f"then, once these are done, {experiment.pairs_at_most} pairs at most")
            return None
        from experiments import power

        best = Best(**plan.evaluation.best.model_dump())
        wanted = power.pairs_wanted(claims, plan.cells, store.records(plan.root, plan.configs), best)
        number = min(wanted or 0, experiment.pairs_at_most)
        asked = f"{wanted} pairs" if wanted else "no number of pairs"
        console.print(f"the spread of the first {experiment.pairs} pairs asks for {asked} for twice the margins")
        return number if number > experiment.pairs else None

    def _power(self, plan: Plan, claims: list[Claim], jobs: int, console: Console) -> None:
        from experiments import power

        best = Best(**plan.evaluation.best.model_dump())
        if said := power.describe_power(claims, plan.cells, store.records(plan.root, plan.configs), best, jobs):
            console.print(said)

    def _jobs(self) -> int:
        """How many processes work side by side on this machine."""
        assert self.config is not None
        n_jobs = OmegaConf.select(self.config, "hydra.launcher.n_jobs")
        return effective_n_jobs(n_jobs) if n_jobs else 1

    def _run(self, plan: Plan, missing: list[str], console: Console) -> dict[str, dict[str, Any]]:
        """Launch the missing runs, and before them what they share; returns the outcomes of `experiments.run.execute`.

        On this machine both stand in one queue, what is shared at its head: no process idles while the last base
        model is at work.
        """
        from experiments import prepare, subset

        configs = {run_id: plan.configs[run_id] for run_id in missing}
        subset.check_sources(configs.values())
        workers.own_workers()
        first: list[str] = []
        if self.cluster:
            check_cluster()
            cluster.prepare(list(configs.values()), self.cluster, console.print)
        else:
            first = prepare.ahead(configs)
        with prepare.told([configs[run_id] for run_id in first], console.print), Monitor(plan, missing, console):
            outcomes = self._launch_all(plan, missing, first)
            for _ in range(plan.configs[missing[0]].survival.retries):
                # what the user has to mend fails again, and so does a loss that left the finite numbers
                again = [i for i, one in outcomes.items() if one["error"] and not one["mistake"] and not one["certain"]]
                if not again:
                    break
                console.print(f"{len(again)} of {len(missing)} runs failed and are tried again")
                outcomes |= self._launch_all(plan, again)
        return outcomes

    def _launch_all(self, plan: Plan, run_ids: list[str], first: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """The outcomes of all of `run_ids`, be it that workers are killed; `first`: as in `_launch`."""
        outcomes: dict[str, dict[str, Any]] = {}
        batches = [run_ids]
        while batches:
            batch, began = batches.pop(0), time.time()
            try:
                outcomes |= self._launch(plan, batch, first)
            except Exception as error:
                if not killed(error):
                    raise
                # A worker was killed, most likely for its memory, and took the whole launch with it. What was not
                # yet begun is launched again, and then what was under way, one at a time: which one it was shows.
                over, begun = self._after_death(plan, batch, began)
                if not (over or begun or first):  # killed before it began: nothing can be run
                    mend = "its processes are killed when they start; free memory or lower it"
                    raise UserError(f"hydra.launcher.n_jobs: {mend}") from error
                outcomes |= over
                left = [run_id for run_id in batch if run_id not in over and run_id not in begun]
                batches = [*([left] if left else []), *([run_id] for run_id in begun), *batches]
            first = ()  # what is still not built then is built by the run that needs it
        return outcomes

    def _launch(self, plan: Plan, run_ids: list[str], first: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The outcomes of `run_ids`, which wait behind jobs that build what the runs `first` share with others."""
        assert self.hydra_context is not None
        assert self.config is not None
        if self.cluster:
            from experiments import run

            experiment, configs = validate_experiment(self.config), {run_id: plan.configs[run_id] for run_id in run_ids}
            return cluster.launch(configs, self.cluster, run.execute, experiment.name, experiment.claims, print)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        before = [[*plan.overrides[run_id], f"plan={PREPARE}"] for run_id in first]
        returns = launcher.launch(before + [plan.overrides[run_id] for run_id in run_ids], initial_job_idx=0)
        outcomes = {}
        for run_id, job in zip(run_ids, returns[len(before) :], strict=True):
            value = job._return_value  # `return_value` prints a traceback for a failed job
            outcomes[run_id] = (
                value if isinstance(value, dict) else workers.outcome(run_id, f"{type(value).__name__}: {value}")
            )
        return outcomes

    def _after_death(self, plan: Plan, batch: list[str], began: float) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """The outcomes of a launch that was cut short, as the store has them, and the runs that were under way."""
        over: dict[str, dict[str, Any]] = {}
        begun = []
        for run_id in batch:
            folder = store.run_folder(plan.root, run_id)
            config = folder / "config.yaml"
            if not (config.exists() and config.stat().st_mtime >= began - 1):  # -1: coarse clocks of file systems
                continue
            failed = store.failure(folder)
            if store.read(folder) is not None or failed:
                over[run_id] = workers.outcome(run_id, failed["error"] if failed else None)
            elif len(batch) == 1:
                error = "its process was killed (out of memory?); try fewer at a time: hydra.launcher.n_jobs=1"
                store.fail(folder, run_id, error)
                over[run_id] = workers.outcome(run_id, error, certain=True)  # tried alone already
            else:
                begun.append(run_id)
        return over, begun

    def _missing(self, plan: Plan, outcomes: dict[str, dict[str, Any]]) -> dict[str, str]:
        """run id -> why there is no record."""
        done = store.finished(plan.root)
        missing = {}
        for run_id in plan.configs:
            if run_id not in done:
                note = outcomes.get(run_id) or store.failure(store.run_folder(plan.root, run_id)) or {}
                missing[run_id] = note.get("error") or "was not run"
        return missing

    def _exit_code(
        self, plan: Plan, missing: dict[str, str], outcomes: dict[str, dict[str, Any]], console: Console
    ) -> int:
        """Say what is missing and why, each reason once."""
        if not missing:
            return 0
        for reason in dict.fromkeys(missing.values()):
            runs = [run_id for run_id in missing if missing[run_id] == reason]
            which = ", ".join(runs[:3]) + (", ..." if len(runs) > 3 else "")
            print(f"{len(runs)} of {len(plan.configs)} runs missing ({which}): {reason}", file=sys.stderr)
        if outcomes:
            console.print(f"the others are kept; see failed.json in {plan.root}/<run>; go on with\n    {command()}")
        return 2 if all(outcomes.get(run_id, {}).get("mistake") for run_id in missing) else 1

    def _report(
        self, plan: Plan, experiment: ExperimentConfig, claims: list[Claim], missing: dict[str, str], console: Console
    ) -> None:
        """The experiment's report and claim table, or a line a run where there is no experiment.

        What was reported already is not reported again, unless that is what is asked for (plan=report).
        """
        assert self.config is not None
        if experiment.name is not None:
            out = plan.root / "reports" / experiment.name
            of = made_of(plan, experiment, claims, missing, self.config.figures, command(of_matter=True))
            if self.config.plan == "run" and (judged := verdicts(out, of)) is not None:
                self._say(judged, out, console)
                return
        records = store.records(plan.root, plan.configs)
        if experiment.name is None:
            for cell in plan.cells:
                if cell.run_id in records:
                    console.print(Text(f"{named(cell)}: {plan.root / cell.run_id}"))
            return
        if not records:
            return
        from experiments import report

        judged = report.build(
            experiment.name,
            experiment.title,
            plan.cells,
            records,
            claims,
            out,
            command(of_matter=True),
            plan.config_yaml,
            evaluation=plan.evaluation,
            failures=missing,
            ood=[name for name, suite in plan.evaluation.suites.items() if suite.ood],
            root=plan.root,
            paper=self.config.figures == "paper",
        )
        tracking = next(iter(plan.configs.values())).tracking
        if tracking.mode != "none":
            from experiments import tracking_report

            tracking_report.mirror(tracking, plan.root, experiment.name, judged, out, plan.evaluation)
        store.write_atomic(out / MADE_OF, of)
        self._say(judged, out, console)

    def _say(self, judged: list[dict[str, Any]], out: Path, console: Console) -> None:
        from experiments.report import claim_table

        if judged:
            console.print(claim_table(judged))
        console.print(f"report: {out / 'index.html'}")


def _claims(plan: Plan, names: list[str]) -> list[Claim]:
    """The experiment's claims, checked against the plan; of a plan that was narrowed, those that it can decide."""
    claims = claim_files.load(names)
    if not plan.narrowed:
        claim_files.check(claims, plan.cells)
        return claims
    frame = cells_frame(plan.cells)
    return [claim for claim in claims if claim_files.undecidable(claim, frame) is None]


def _with_pairs(master: DictConfig, pairs: int) -> DictConfig:
    """The same configuration with another number of pairs."""
    other = copy.deepcopy(master)
    with read_write(other):
        other.experiment.pairs = pairs
    return other


def interrupted(error: BaseException | None) -> bool:
    """Whether `error` came of Ctrl-C, be it that a library's clean-up turned it into something else."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def killed(error: Exception) -> bool:
    """Whether a launcher gave up because a process of its own was killed: joblib's error, or one of Ray's."""
    return isinstance(error, TerminatedWorkerError) or type(error).__module__.startswith("ray.")


def command(of_matter: bool = False) -> str:
    """The command line that asked for this, to be typed again; or of it `of_matter` to the results alone."""
    arguments = [argument for argument in sys.argv[1:] if argument != "plan=report"]
    if of_matter:
        arguments = [argument for argument in arguments if re.split("[.=]", argument)[0] not in OF_NO_MATTER]
    return shlex.join(["python", "-m", "experiments.run", *arguments])
