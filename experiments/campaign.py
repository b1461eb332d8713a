"""All experiments of the embedded world, one after the other: every claim decided, what they share run once.

    python -m experiments.campaign                    (make claims; 900 runs, 2.5 hours on 2 shared cores)
    python -m experiments.campaign plan=only          what each would run, and how many runs that makes together
    python -m experiments.campaign store.root=FOLDER  any key, handed on to every experiment

What is finished is never run again; an experiment whose report is up to date is passed over.
Exit codes as of `experiments.run`; an experiment that fails does not keep the others from being run.
"""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hydra_plugins.paired_sweeper.forecast import work
from hydra_plugins.paired_sweeper.plan import Plan, make_plan
from omegaconf import OmegaConf
from rich.console import Console

from experiments import claim_files, report, run, store
from experiments.config import validate_experiment

# the ones that others share most with come first, those that need base models of other sizes last
EXPERIMENTS = (
    "alpagasus",
    "superficial_alignment",
    "duplication",
    "pareto",
    "repair",
    "alpagasus_noise",
    "alpagasus_fraction",
    "alpagasus_rate",
    "alpagasus_steps",
    "peft",
    "judge_bias",
    "simulator",
    "label_noise",
    "data_vs_model",
)
INTERRUPTED = 130


def planned(name: str, overrides: Sequence[str]) -> tuple[Plan, list[claim_files.Claim]]:
    """The plan of one experiment and the claims that it decides; raises what `experiments.run` would."""
    with initialize_config_dir(str(run.CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        arguments = [f"experiment={name}", *overrides]
        master = loader.load_configuration("config", arguments, RunMode.MULTIRUN)
        plan = make_plan(loader, master, OmegaConf.to_container(master.hydra.overrides.task))
        claims = claim_files.load(validate_experiment(master).claims)
    if not plan.narrowed:
        claim_files.check(claims, plan.cells)
    return plan, claims


def up_to_date(folder: Path, plan: Plan, claims: Sequence[claim_files.Claim]) -> bool:
    """Whether the report in `folder` is of all the plan's runs and of these claims as they are now."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        judged = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    defined = {entry["definition"]["id"]: entry["definition"] for entry in judged}
    now = {claim.id: claim.model_dump(mode="json") for claim in claims}
    same = defined.keys() == now.keys() and all(now[k].items() <= defined[k].items() for k in now)
    return same and manifest["runs"] == sorted(plan.configs) and not manifest["missing"]


def campaign(overrides: Sequence[str], console: Console, names: Sequence[str] = EXPERIMENTS) -> int:
    """Run what is missing of the experiments `names`; returns the exit code."""
    only = "plan=only" in overrides
    plans = {name: planned(name, [o for o in overrides if o != "plan=only"]) for name in names}
    root = next(iter(plans.values()))[0].root
    wanted = {run_id: config for plan, _ in plans.values() for run_id, config in plan.configs.items()}
    store.set_aside(root, wanted)
    began, code = time.monotonic(), 0
    asked = work([wanted[run_id] for run_id in wanted.keys() - store.finished(root)])
    for number, (name, (plan, claims)) in enumerate(plans.items(), 1):
        missing = wanted.keys() - store.finished(root)
        lacking = work([wanted[run_id] for run_id in missing])
        left = _left(time.monotonic() - began, asked - lacking, lacking)
        done = f"{len(wanted) - len(missing)} of {len(wanted)} runs done"
        console.print(f"experiment {number} of {len(plans)}: {name}; {done}{left}")
        if not only and up_to_date(root / "reports" / name, plan, claims):
            continue
        command = [sys.executable, "-m", "experiments.run", f"experiment={name}", *overrides]
        found = subprocess.run(command).returncode
        if found == INTERRUPTED:
            console.print(f"go on with\n    {shlex.join(['python', '-m', 'experiments.campaign', *overrides])}")
            return found
        code = max(code, found)
    if not only:
        judged = [entry for name in names for entry in _judged(root / "reports" / name / "claims.json")]
        console.print(report.claim_table(judged))
    return code


def _left(seconds: float, done: float, lacking: float) -> str:
    """The time for the work that is lacking, at the pace of what was `done` in `seconds`."""
    return f", about {max(1, round(seconds / done * lacking / 60))} min left" if done > 0 and lacking else ""


def _judged(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def main(arguments: Sequence[str]) -> int:
    """The command line above; returns the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
    try:
        return campaign(arguments, console)
    except run.MISTAKES as error:
        print(f"error: {run.one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
