"""What a run of the embedded world costs, and where:  python tests/benchmarks/bench_run.py [--store runs] [--pairs 3]

Whole runs of the default size in one process of one thread, wandb offline, base model and reward model made beforehand
(minutes, where STORE has none); those of a pair in turn, as an experiment makes them. Printed: runs an hour, the share
of each part in the time by the clock, and how much of the machine's matrix-product peak the training steps use for
arithmetic on tokens that are no padding: counted as usual, six operations a weight and token, whether or not a way was
found around some of them (the last layer and the head, where no label is). Products are timed between the runs, so
that the peak is that of the same minutes: their mean is to the mean step what the best of them is to the best step,
and on a machine whose cores are shared the two lie far apart.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
if "GLIBC_TUNABLES" not in os.environ and __name__ == "__main__":
    import experiments.run  # noqa: F401  it says how memory is kept, to processes that start after it

    os.execv(sys.executable, [sys.executable, *sys.argv])

import torch
from hydra import compose, initialize_config_dir

from experiments import pipeline, prepare, store, tracking
from experiments.config import Config, run_id, validate
from experiments.run import CONF
from train.models import load_to_tune

SIZE = 768  # of the square matrices whose product measures the peak


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return validate(compose("config", list(overrides)))


def products(times: int = 30) -> list[float]:
    """Seconds of large matrix products on one thread."""
    a, b = torch.rand(SIZE, SIZE), torch.rand(SIZE, SIZE)
    found = []
    for _ in range(times):
        began = time.perf_counter()
        a @ b
        found.append(time.perf_counter() - began)
    return found


def arithmetic(config: Config, tokens: float, length: float) -> float:
    """Operations of training on so many tokens in rows of this mean length: two a weight forward, four backward."""
    model, _ = load_to_tune(prepare.build_base(config), config.model)
    weights = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed_tokens" not in name)
    weights += model.get_input_embeddings().weight.numel() * (model.config.tie_word_embeddings)  # the head
    attention = 2 * model.config.num_hidden_layers * length * model.config.hidden_size
    return 6 * tokens * (weights + attention)


def timed(config: Config, steps: list[float]) -> Counter[str]:
    """Seconds by the clock of the parts of one run, and of all of it; those of each step are added to `steps`."""
    folder, parts = store.run_folder(config.store.root, run_id(config)), Counter[str]()
    before = [0, 0.0]  # the step told of last, and when
    real = {"finetune": pipeline.finetune, "curate_subset": pipeline.curate_subset}

    def watched(name: str, function):
        def call(*arguments, **options):
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                parts[name] += time.perf_counter() - began

        return call

    def stepwise(*arguments, at_step, **options):
        def told(step: int) -> None:  # before an evaluation and after it
            if step == before[0] + 1 and step > 1:
                steps.append(time.perf_counter() - before[1])
            at_step(step)
            before[:] = step, time.perf_counter()

        return real["finetune"](*arguments, at_step=told, **options)

    evaluated = pipeline.evaluated
    try:
        pipeline.finetune = watched("finetune", stepwise)
        pipeline.curate_subset = watched("pool, noise, subset", real["curate_subset"])
        pipeline.evaluated = watched("evaluation", evaluated)
        began = time.perf_counter()
        store.open_run(folder, config.model_dump(mode="json"))
        record = pipeline.run(config, folder)
        middle = time.perf_counter()
        tracking.mirror(config, folder, record)
        parts["wandb"] = time.perf_counter() - middle
        whole = time.perf_counter() - began
    finally:
        pipeline.finetune, pipeline.curate_subset = real["finetune"], real["curate_subset"]
        pipeline.evaluated = evaluated
    cost = record["cost"]
    at_points = cost["eval_s"]
    parts["steps"] = parts.pop("finetune") - at_points
    parts["scores, selection"] = (cost["score_s"] or 0.0) + (cost["select_s"] or 0.0)
    parts["pool, noise, subset"] = max(0.0, parts["pool, noise, subset"] - parts["scores, selection"])
    parts["evaluation"] = max(parts["evaluation"], at_points)  # with what is measured beside the suites
    parts["model, suites, records"] = whole - parts.total()
    parts["whole"] = whole
    parts["tokens"] = record["cost"]["tokens_seen"]
    parts["length"] = record["data"]["tokens"] / record["data"]["rows"]
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="runs", help="where base and reward models are, or are made")
    parser.add_argument(
        "--arms", nargs="+", default=["full", "random", "longest", "oracle"], help="filtered: what scoring adds"
    )
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    common = ("noise=mixture", "noise.rate=0.5", "seed.base=0")
    first = composed(*common, f"arm={options.arms[0]}", f"store.root={options.store}")
    with prepare.told([first], lambda said: print(said, file=sys.stderr)):
        prepare.build(first)
    peak: list[float] = []
    steps: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "cache").mkdir()
        (root / "cache" / "models").symlink_to(Path(options.store, "cache", "models").resolve())
        arms = [f"arm={arm}" for arm in options.arms]
        pairs = [f"seed.pair={pair}" for pair in range(options.pairs + 1)]
        configs = [composed(*common, arm, f"store.root={root}", pair) for pair in pairs for arm in arms]
        found = []
        for number, config in enumerate(configs):
            if number == len(arms):  # the first ones import what the others have
                found.clear()
                steps.clear()
            found.append(timed(config, steps))
            peak += products()
        total = sum(found, Counter())
        done = arithmetic(configs[0], total["tokens"], total["length"] / len(found))
    print(f"{3600 * len(found) / total['whole']:.0f} runs an hour, {total['whole'] / len(found):.1f} s each")
    parts = {part: seconds for part, seconds in total.items() if part not in ("whole", "tokens", "length")}
    for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"  {part:36} {100 * seconds / total['whole']:5.1f} %")
    curation = total["scores, selection"]
    around = 1 - total["steps"] / (total["whole"] - curation)
    print(f"around the steps {100 * around:.0f} %, scoring and selecting not counted (goal: at most 25 %)")
    a_step, a_product = done / len(steps) / 1e9, 2 * SIZE**3 / 1e9
    for name, of in (("best tenth", lambda found: statistics.quantiles(found, n=10)[0]), ("mean", statistics.fmean)):
        top, reached = a_product / of(peak), a_step / of(steps)
        print(f"{name} step {1e3 * of(steps):.1f} ms: {100 * reached / top:.0f} % of {top:.0f} GFLOP/s (goal: 50 %)")


if __name__ == "__main__":
    main()
