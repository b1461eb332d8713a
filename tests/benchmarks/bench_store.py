"""How a store of many runs behaves:  python tests/benchmarks/bench_store.py [--sizes 100 1000 10000]

Synthetic finished runs of one sweep of quickstart, their records as large as those of real runs, are planned, run again
(which does nothing), listed and reported, each as a user would from the command line, process start included. Beside
it the obvious way: read and parse every record, and every config as YAML.
"""

import argparse
import copy
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hydra import initialize_config_dir  # noqa: E402
from hydra.core.global_hydra import GlobalHydra  # noqa: E402
from hydra.types import RunMode  # noqa: E402
from hydra_plugins.paired_sweeper.plan import Plan, make_plan  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from experiments import exchange, run, store  # noqa: E402

SIZES = (100, 1_000, 10_000)
GOALS = "goals at 10,000 runs: planning 30 s, a rerun 30 s, a listing 2 s, a report 60 s"
CELLS = 100  # of the sweep: 5 arms at 20 rates of noise


def arguments_of(count: int, root: Path) -> list[str]:
    rates = ",".join(f"{i / 20:g}" for i in range(CELLS // 5))
    return [
        "experiment=quickstart", "arm=full,filtered,random,longest,oracle", f"noise.rate={rates}",
        f"seed.pair=range({count // CELLS})", f"store.root={root}", "tracking=none",
    ]  # fmt: skip


def planned(arguments: list[str]) -> Plan:
    with initialize_config_dir(str(run.CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", arguments, RunMode.MULTIRUN)
        return make_plan(loader, master, OmegaConf.to_container(master.hydra.overrides.task))


def fill(root: Path, arguments: list[str]) -> int:
    """Write the finished runs of a plan, each record that of a real run with other numbers; returns their bytes."""
    real = exchange.read_records(ROOT / "results" / "quickstart" / exchange.RECORDS)
    by_arm = {entry["record"]["arm"]: entry["record"] for entry in real}
    size = 0
    for name, config in planned(arguments).configs.items():
        made = jittered(by_arm[config.arm], random.Random(name))
        made |= {"run_id": name, "arm": config.arm, "seeds": config.seed.model_dump(exclude={"bases"})}
        text, folder = store.canonical(made), root / name
        folder.mkdir(parents=True)
        dumped = yaml.dump(config.model_dump(mode="json"), Dumper=yaml.CSafeDumper, sort_keys=False)
        (folder / "config.yaml").write_text(dumped)
        (folder / store.SUMS).write_text(f"{store.sha256(text.encode())}  {store.RECORD}\n")
        (folder / store.RECORD).write_text(text)
        size += len(text)
    return size


def jittered(record: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    made = copy.deepcopy(record)
    for suites in made["metrics"].values():
        for metrics in suites.values():
            for cell in metrics.values():
                if cell["value"] is not None:
                    cell["value"] *= 1 - 0.1 * draw.random()
    return made


def timed(*command: str) -> float:
    """Seconds of a command in a process of its own; it must succeed."""
    began = time.perf_counter()
    ended = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{command}: {ended.stdout[-500:]} {ended.stderr[-2000:]}")
    return time.perf_counter() - began


def obvious(root: Path) -> float:
    """Seconds to read every record and every config as they are."""
    began = time.perf_counter()
    for folder in root.iterdir():
        if (folder / "record.json").exists():
            json.loads((folder / "record.json").read_text())
            yaml.safe_load((folder / "config.yaml").read_text())
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    sizes = parser.parse_args().sizes
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(GOALS)
    for count in sizes:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name, "runs")
            arguments = arguments_of(count, root)
            size = fill(root, arguments)
            here = f"store.root={root}"
            seconds = {
                "planning": timed("experiments.run", "-m", *arguments, "plan=only"),
                "report": timed("experiments.report", "-m", *arguments),
                "rerun": timed("experiments.run", "-m", *arguments),
                "first listing": timed("experiments.store", "list", here),
                "listing": timed("experiments.store", "list", here, "noise.rate=0.5"),
            }
            slow = obvious(root)
        print(f"{count} runs, {size / count / 1e3:.0f} kB a record")
        for what, taken in seconds.items():
            print(f"  {what:14} {taken:7.1f} s")
        print(f"  reading all    {slow:7.1f} s, {slow / seconds['listing']:.0f} x the listing", flush=True)


if __name__ == "__main__":
    main()
