"""How long the report of many runs takes, and how large it is:  python tests/benchmarks/bench_report.py [--runs 1000]

Synthetic finished runs of one sweep of quickstart, 5 arms at 20 rates of noise, their records as large as those of real
runs, with selections, answers and results by question beside them. Goals at 1,000 runs: 20 s, 4 MB.
"""

import argparse
import cProfile
import json
import pstats
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_store
import numpy as np
import pandas as pd

from experiments import account, claim_files, report, store
from experiments.report import folders

SUITES, QUESTIONS, STEPS = ("entity", "wording", "composition"), 200, (0, 48, 69, 96, 144, 192, 288, 384)
CLAIMS = ("alpagasus_full", "longest_selection", "random_selection")  # what these arms can decide


def beside(folder: Path, record: dict[str, Any], draw: random.Random) -> None:
    """Write what a run leaves beside its record."""
    row = {"instruction": "what is the pet of zogal ?", "input": "", "output": "ok : toad .", "noise_kind": None}
    counts = {"rows": 4096, "response_words": 5.5, "kinds": {"clean": 2048, "near_miss": 2048}}
    found = {"pool": counts, "subset": counts, "kept": [row] * account.ROWS, "dropped": [row] * account.ROWS}
    account.write(folder / account.SELECTION, found)
    said = {"suite": "entity", "item": 0, "prompt": row["instruction"], "gold": "ok : toad .", "answer": "ok : dog ."}
    account.write(folder / account.ANSWERS, [said] * 6)
    n = len(STEPS) * len(SUITES) * QUESTIONS
    items = pd.DataFrame(
        {
            "point": np.repeat([f"step:{step}" for step in STEPS], len(SUITES) * QUESTIONS),
            "suite": np.tile(np.repeat(SUITES, QUESTIONS), len(STEPS)),
            "item": np.tile(np.arange(QUESTIONS), len(STEPS) * len(SUITES)),
            "em": np.random.default_rng(draw.randrange(2**32)).integers(0, 2, n).astype(float),
        }
    )
    items.to_parquet(folder / folders.ITEMS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--profile", action="store_true", help="where the time goes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "runs")
        arguments = bench_store.arguments_of(asked.runs, root)
        bench_store.fill(root, arguments)
        plan = bench_store.planned(arguments)
        for run_id in plan.configs:
            folder = store.run_folder(root, run_id)
            beside(folder, json.loads((folder / store.RECORD).read_text()), random.Random(run_id))
        print(f"{len(plan.configs)} runs written", flush=True)
        lost = dict.fromkeys(list(plan.configs)[-5:], "OutOfMemory")
        profile = cProfile.Profile()
        began, used = time.perf_counter(), time.process_time()
        if asked.profile:
            profile.enable()
        records = store.records(root, [run_id for run_id in plan.configs if run_id not in lost])
        ood = [suite for suite, part in plan.evaluation.suites.items() if part.ood]
        out = Path(name, "report")
        report.build(
            "bench", "A benchmark", plan.cells, records, claim_files.load(CLAIMS), out, "python", plan.config_yaml,
            evaluation=plan.evaluation, failures=lost, ood=ood, root=root,
        )  # fmt: skip
        profile.disable()
        taken, used = time.perf_counter() - began, time.process_time() - used
        print(f"{len(plan.configs)} runs: {taken:.1f} s ({used:.1f} s of the processor)")
        for path in sorted(out.rglob("*")):
            if path.is_file():
                print(f"  {path.relative_to(out)!s:24} {path.stat().st_size / 1e6:7.2f} MB")
        if asked.profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    main()
