"""Hydra's sweeper for experiments: plan, prepare, run, report.

Installed as `hydra_plugins.paired_sweeper`, the name space in which Hydra allows sweepers.
"""

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from joblib import effective_n_jobs
from joblib.externals.loky.process_executor import TerminatedWorkerError
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from experiments import UserError, store
from experiments.config import ExperimentConfig, validate_experiment
from hydra_plugins.paired_sweeper.plan import Plan, describe, make_plan
from hydra_plugins.paired_sweeper.progress import Monitor

ConfigStore.instance().store(
    group="hydra/sweeper",
    name="paired",
    node={"_target_": "hydra_plugins.paired_sweeper.PairedSweeper"},
    provider="quality-vs-quantity",
)

PLANS = ("run", "only", "report")


class PairedSweeper(Sweeper):
    """Expands an experiment to runs, launches those that are missing, and reports on all."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Plan and do what `plan` says; leaves by SystemExit with a code other than 0 unless all is there."""
        assert self.config is not None
        assert self.hydra_context is not None
        console = Console(highlight=False, soft_wrap=True)
        if self.config.plan not in PLANS:
            raise UserError(f"plan={self.config.plan}: no such plan; use one of {', '.join(PLANS)}")
        experiment = validate_experiment(self.config)
        plan = make_plan(self.hydra_context.config_loader, self.config, arguments)
        root = plan.root
        store.check_writable(root)
        done = store.finished(root)
        missing = [run_id for run_id in plan.configs if run_id not in done]
        jobs = self._jobs()
        console.print(describe(plan, missing, jobs, experiment.name))
        if self.config.plan == "only":
            return

        outcomes: dict[str, dict[str, Any]] = {}
        if missing and self.config.plan == "run":
            try:
                outcomes = self._run(plan, missing, jobs, console)
            except KeyboardInterrupt:
                kept = len(store.finished(root) & plan.configs.keys())
                console.print(f"\nstopped: {kept} of {len(plan.configs)} runs are done and kept; go on with\n    {command()}")
                raise SystemExit(130) from None
        self._report(plan, experiment, console)
        code = self._failures(plan, outcomes, console)
        if code:
            raise SystemExit(code)

    def _jobs(self) -> int:
        """How many processes work side by side on this machine."""
        assert self.config is not None
        n_jobs = OmegaConf.select(self.config, "hydra.launcher.n_jobs")
        return effective_n_jobs(n_jobs) if n_jobs else 1

    def _run(self, plan: Plan, missing: list[str], jobs: int, console: Console) -> dict[str, dict[str, Any]]:
        """Build what the missing runs share, then launch them; returns the outcomes of `experiments.run.execute`."""
        from experiments import prepare

        prepare.prepare([plan.configs[run_id] for run_id in missing], jobs, console.print)
        outcomes: dict[str, dict[str, Any]] = {}
        with Monitor(plan, missing, console):
            for _attempt in range(3):
                left = [run_id for run_id in missing if run_id not in outcomes]
                if not left:
                    break
                began = time.time()
                try:
                    outcomes |= self._launch(plan, left)
                except TerminatedWorkerError:
                    # A worker was killed, most likely for its memory, and took the launch with it. Those that were
                    # under way have failed; the others are launched again.
                    outcomes |= self._casualties(plan, left, began)
        return outcomes

    def _launch(self, plan: Plan, run_ids: list[str]) -> dict[str, dict[str, Any]]:
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        returns = launcher.launch([plan.overrides[run_id] for run_id in run_ids], initial_job_idx=0)
        outcomes = {}
        for run_id, job in zip(run_ids, returns, strict=True):
            value = job._return_value  # `return_value` prints a traceback for a failed job
            failed = {"run_id": run_id, "error": f"{type(value).__name__}: {value}", "mistake": False}
            outcomes[run_id] = value if isinstance(value, dict) else failed
        return outcomes

    def _casualties(self, plan: Plan, run_ids: list[str], began: float) -> dict[str, dict[str, Any]]:
        outcomes = {}
        for run_id in run_ids:
            folder = store.run_folder(plan.root, run_id)
            started = (folder / "config.yaml").exists() and (folder / "config.yaml").stat().st_mtime >= began - 1
            if store.read(folder) is not None:
                outcomes[run_id] = {"run_id": run_id, "error": None, "mistake": False}
            elif failure := store.failure(folder) if started else None:
                outcomes[run_id] = {"run_id": run_id, "error": failure["error"], "mistake": False}
            elif started:
                error = "its process was killed (out of memory?); fewer at a time: hydra.launcher.n_jobs=1"
                store.fail(folder, run_id, error)
                outcomes[run_id] = {"run_id": run_id, "error": error, "mistake": False}
        return outcomes

    def _failures(self, plan: Plan, outcomes: dict[str, dict[str, Any]], console: Console) -> int:
        """Say what is missing and why; the exit code."""
        records = store.finished(plan.root)
        absent = [run_id for run_id in plan.configs if run_id not in records]
        if not absent:
            return 0
        reasons: dict[str, list[str]] = {}
        for run_id in absent:
            note = outcomes.get(run_id) or store.failure(store.run_folder(plan.root, run_id)) or {}
            reasons.setdefault(note.get("error") or "was not run", []).append(run_id)
        for reason, run_ids in reasons.items():
            which = ", ".join(run_ids[:3]) + (", ..." if len(run_ids) > 3 else "")
            print(f"{len(run_ids)} of {len(plan.configs)} runs missing ({which}): {reason}", file=sys.stderr)
        if outcomes:
            console.print(f"the others are kept; see failed.json in {plan.root}/<run>; go on with\n    {command()}")
        return 2 if outcomes and all(outcomes.get(i, {}).get("mistake") for i in absent) else 1

    def _report(self, plan: Plan, experiment: ExperimentConfig, console: Console) -> None:
        """The experiment's report and claim table, or a line a run where there is no experiment."""
        records = store.records(plan.root, plan.configs)
        if experiment.name is None:
            for cell in plan.cells:
                if cell.run_id in records:
                    levels = " ".join(f"{key}={value}" for key, value in cell.levels.items())
                    console.print(f"{cell.arm} pair {cell.seeds['pair']} {levels}: {plan.root / cell.run_id}")
            return
        if not records:
            return
        from experiments import claims as claims_module
        from experiments import report

        out = Path(plan.root) / "reports" / experiment.name
        cells = [cell for cell in plan.cells if cell.run_id in records]
        claims = report.build(
            experiment.name,
            experiment.title,
            cells,
            records,
            claims_module.load(experiment.claims),
            out,
            command(),
            plan.config_yaml,
        )
        if claims:
            console.print(report.claim_table(claims))
        console.print(f"report: {out / 'index.html'}")


def command() -> str:
    """The command line that asked for this, to be typed again."""
    arguments = [argument for argument in sys.argv[1:] if argument != "plan=report"]
    return shlex.join(["python", "-m", "experiments.run", *arguments])
