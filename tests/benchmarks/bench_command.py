"""The whole scoring command against a script with the pair-by-pair loop of a model card: wall time, imports included.

python tests/benchmarks/bench_command.py [--data FILE] [--pairs 256] [--threads 1]

Model and lengths are those of bench_scoring.py. Both are processes of their own that read the same rows and the same
model folder; the command also selects and writes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_scoring import TEXT, like_alpaca, one_by_one, pairs_of, random_model

from curate.example import load_pool


def loop(rows: Path, folder: Path) -> None:
    """What a user would write after reading the model's card."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    asked = [json.loads(line) for line in rows.read_text().splitlines()]
    one_by_one(model.eval(), tokenizer, [TEXT.format(row["instruction"], row["output"]) for row in asked])


def timed(command: list[str], threads: int) -> float:
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--loop", nargs=2, help=argparse.SUPPRESS)  # in the other process
    given = parser.parse_args()
    if given.loop:
        loop(*map(Path, given.loop))
        return
    words = like_alpaca(given.pairs)
    if given.data:
        rows = load_pool(given.data, rows=given.pairs).pool.to_list()
        words = [round(4 / 3 * len(f"{r['instruction']} {r['input']} {r['output']}".split())) for r in rows]
    with tempfile.TemporaryDirectory() as name:
        rows, folder = Path(name, "rows.jsonl"), Path(name, "model")
        for part in random_model(12):
            part.save_pretrained(folder)
        asked = [
            {"instruction": p, "output": f"{r} {at}"} for at, (p, r) in enumerate(zip(*pairs_of(words), strict=True))
        ]
        rows.write_text("".join(json.dumps(row) + "\n" for row in asked))
        ours = [
            sys.executable, "-m", "curate", f"data.path={rows}", "scorer=reward_model", f"scorer.model={folder}",
            "selection=top_fraction", "selection.fraction=0.5", f"out.path={name}/kept.jsonl", "cache=null",
        ]  # fmt: skip
        theirs = [sys.executable, __file__, "--loop", str(rows), str(folder)]
        seconds = [timed(command, given.threads) for command in (theirs, ours)]
    print(
        f"{len(asked)} pairs, {given.threads} threads: loop {seconds[0]:.1f} s, command {seconds[1]:.1f} s,"
        f" {seconds[0] / seconds[1]:.2f} x"
    )


if __name__ == "__main__":
    main()
