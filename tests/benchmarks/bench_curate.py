"""How fast and in how much memory a pool is curated:  python tests/benchmarks/bench_curate.py [--large] [ALPACA.json]

First the command on the file that is named: surface score, near-duplicates, selection, imports included.
Then synthetic pools of 50,000 and 500,000 rows (--large: 5,000,000 too), each in a process of its own: load, score,
find near-duplicates, select, write. Last, near-duplicates against rensa's own deduplicator and against all pairs.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from curate.example import load_pool, take
from curate.neardup import near_duplicates
from curate.scoring.surface import surface
from curate.select import select
from curate.writing import write_rows

ROOT = Path(__file__).resolve().parents[2]
SIZES = (50_000, 500_000)
LARGE = 5_000_000
GOALS = "goals: the command at most 15 s; 5,000,000 rows in at most 8 GB; time a row the same at every size"
EXACT, NEAR = 0.02, 0.08  # shares of planted duplicates
_BLOCK = 10_000


def synthetic(count: int, seed: int = 0) -> Iterator[tuple[dict[str, str], bool]]:
    """Rows with lengths spread as in Alpaca, of phrases that many rows share, and whether each is a planted duplicate.

    A duplicate repeats one of the 10,000 rows before it: as a whole, but for case, or with one word of its response
    exchanged, in rows long enough that a Jaccard similarity of 0.8 is left.
    """
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 11, 30_000)]
    rank = 1 / (10 + np.arange(30_000))
    drawn = iter(rng.choice(words, 240_000, p=rank / rank.sum()))
    sizes = rng.integers(1, 5, 60_000)
    phrases = np.array([" ".join(next(drawn) for _ in range(size)) for size in sizes], dtype=object)
    weight = 1 / (20 + np.arange(60_000))
    weight /= weight.sum()
    long: list[dict[str, str]] = []
    for start in range(0, count, _BLOCK):
        n = min(_BLOCK, count - start)
        lengths = np.stack(
            [
                rng.integers(2, 7, n),
                rng.integers(1, 10, n) * (rng.random(n) < 0.4),
                np.clip(rng.lognormal(2.4, 1.0, n), 1, 300).astype(int),
            ]
        ).T
        drawn = iter(phrases[rng.choice(60_000, lengths.sum(), p=weight)])
        kind, source = rng.random(n), rng.random(n)
        before, long = long, []
        for at, (i, x, o) in enumerate(lengths.tolist()):
            texts = [" ".join(next(drawn) for _ in range(size)) for size in (i, x, o)]
            row, planted = dict(zip(("instruction", "input", "output"), texts, strict=True)), False
            if before and kind[at] < EXACT + NEAR:
                original = before[int(source[at] * len(before))]
                said = original["output"].split()
                said[len(said) // 2] = "exchanged"
                row = {**original, "output": " ".join(said) if kind[at] >= EXACT else original["output"].upper()}
                planted = True
            elif sum(map(len, texts)) > 350:
                long.append(row)
            yield row, planted
        long = long or before


def write_synthetic(path: Path, count: int) -> int:
    planted = 0
    with path.open("w") as file:
        for row, copy in synthetic(count):
            file.write(json.dumps(row) + "\n")
            planted += copy
    return planted


def stages(path: Path, planted: int) -> None:
    """Curate the file in this process, and print what each stage took."""
    started, used = time.perf_counter(), time.process_time()
    first = started

    def took(stage: str) -> None:
        nonlocal started, used
        now, cpu = time.perf_counter(), time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rate = len(pool) / (now - started)
        print(
            f"  {stage:16} {now - started:7.1f} s  ({cpu - used:7.1f} s CPU) {rate:10,.0f} rows/s  {peak:5.2f} GB peak"
        )
        started, used = time.perf_counter(), time.process_time()

    pool = load_pool(path).pool
    took("load")
    scores = surface(pool, "words")
    took("score")
    removed = near_duplicates(pool, threshold=0.8)
    took("near-duplicates")
    left = np.setdiff1d(np.arange(len(pool)), [one.row for one in removed])
    chosen = left[select(take(pool, left), kind="top_fraction", seed=0, scores=scores[left], fraction=0.5)]
    took("select")
    write_rows(path.with_name("out.jsonl"), take(pool, chosen))
    took("write")
    whole = started - first
    print(f"  {'all':16} {whole:7.1f} s  {1e6 * whole / len(pool):.0f} microseconds a row")
    print(f"  removed {len(removed)} rows where {planted} duplicates and near-duplicates were planted", flush=True)


def command(source: Path, folder: Path) -> None:
    given = (
        f"data.path={source}", "scorer=surface", "scorer.feature=lexical_variety", "dedup.near=0.8",
        "selection=top_fraction", "selection.fraction=0.5", f"out.path={folder}/kept.json",
        f"out.rejected={folder}/rejected.jsonl",
    )  # fmt: skip
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run([sys.executable, "-m", "curate", *given], cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(ended.stderr)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"python -m curate {source.name}: {wall:.1f} s ({used:.1f} s CPU); {ended.stdout.strip()}")


def alternatives(path: Path) -> None:
    """Ours on strings against rensa's deduplicator fed with Python sets; and against every pair, which is the truth."""
    from rensa import RMinHash, RMinHashDeduplicator

    pool = load_pool(path).pool
    texts = [f"{row['instruction']}\n{row['input']}\n{row['output']}" for row in pool]

    def shingles(text: str) -> set[str]:
        words = text.lower().split()
        return {" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2))}

    def ours() -> set[int]:
        return {one.row for one in near_duplicates(pool, threshold=0.8)}

    def theirs() -> set[int]:
        seen = RMinHashDeduplicator(0.8, 128, use_lsh=True, seed=0)
        return {at for at, sketch in enumerate(RMinHash.from_token_sets(map(shingles, texts), 128, 0))
                if not seen.add(str(at), sketch)}  # fmt: skip

    best: dict[str, float] = {}
    for _ in range(2):
        for name, way in (("ours", ours), ("RMinHashDeduplicator", theirs)):
            started = time.process_time()
            found = way()
            best[name] = min(best.get(name, float("inf")), time.process_time() - started)
            print(f"  {name:22} {best[name]:6.1f} s CPU, {len(found)} of {len(pool)} rows removed")
    print(f"  ours is {best['RMinHashDeduplicator'] / best['ours']:.1f} x as fast as RMinHashDeduplicator")

    near = near_duplicates(pool, threshold=0.8)
    rows = sorted({row for one in near[:400] if one.of is not None for row in (one.row, one.of)} | set(range(1500)))
    sets = [shingles(texts[row]) for row in rows]
    started, truth = time.process_time(), set()
    for at, mine in enumerate(sets):
        for other in range(at):
            shared = len(mine & sets[other])
            if other not in truth and shared >= 0.8 * (len(mine) + len(sets[other]) - shared):
                truth.add(at)
                break
    naive = time.process_time() - started
    started = time.process_time()
    found = {one.row for one in near_duplicates(pool.select(rows), threshold=0.8)}
    mine_ = time.process_time() - started
    print(f"  all pairs of {len(rows)} rows: {naive:.1f} s, ours {mine_:.2f} s ({naive / mine_:.0f} x);"
          f" {len(found & truth)} of their {len(truth)} found, {len(found - truth)} others")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--large", action="store_true", help="5,000,000 rows too")
    parser.add_argument("--stages", nargs=2, metavar=("FILE", "PLANTED"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stages:
        stages(Path(given.stages[0]), int(given.stages[1]))
        return
    print(GOALS)
    with tempfile.TemporaryDirectory() as folder:
        if given.data:
            command(given.data.resolve(), Path(folder))
        path = Path(folder) / "rows.jsonl"
        for size in (*SIZES, LARGE) if given.large else SIZES:
            planted = write_synthetic(path, size)
            print(f"{size:,} rows, {path.stat().st_size / 1e6:,.0f} MB", flush=True)
            subprocess.run([sys.executable, __file__, "--stages", str(path), str(planted)], check=True)
        write_synthetic(path, SIZES[0])
        print(f"near-duplicates of {SIZES[0]:,} rows:")
        alternatives(path)


if __name__ == "__main__":
    main()
