"""How far a sweep is, told from the store: whichever launcher and machine the runs are on."""

import os
import threading
import time

from hydra_plugins.paired_sweeper.plan import Plan
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from experiments import store
from experiments.config import Config
from experiments.table import Cell

POLL_S = 1.0
SHOWN = 8  # runs that have a bar of their own, of those that are under way


class Monitor:
    """While entered, watches the folders of `missing` runs and says how far they are.

    On a terminal: a bar for the sweep with the time left, and one for each run under way with its last evaluated step
    and what the leading metric was there. Elsewhere a line for each run that is over. A first table of arms follows
    the first whole pair. Colours are left out where NO_COLOR is set (rich sees to it).
    """

    def __init__(self, plan: Plan, missing: list[str], console: Console):
        self.plan, self.missing, self.console = plan, missing, console
        self.names: dict[str, str] = {}
        for cell in plan.cells:
            self.names.setdefault(cell.run_id, named(cell))
        first = plan.cells[0].seeds["pair"] if plan.cells else 0
        self.first_pair = [cell for cell in plan.cells if cell.seeds["pair"] == first]
        self.table_due = any(cell.run_id in missing for cell in self.first_pair) and len(self.first_pair) > 1
        self.live = console.is_terminal and not console.is_dumb_terminal
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._began: float | None = None  # the first run; the models made before it say nothing of the time left
        self._began_clock = time.time()
        self._over: dict[str, str] = {}  # run id -> the file that says so, once it has been reported
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            console=console,
            disable=not self.live,
        )

    def __enter__(self) -> "Monitor":
        self._progress.start()
        self._sweep = self._progress.add_task("runs", total=len(self.missing), state=f"0/{len(self.missing)}")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look(last=True)
        self._progress.stop()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            self._look()

    def _look(self, last: bool = False) -> None:
        over, under_way = {}, {}
        for run_id in self.missing:
            if ended := self._ended(run_id):
                over[run_id] = ended
            elif self._begun(run_id):
                under_way[run_id] = self._point(run_id)
        if self._began is None and (over or under_way):
            self._began = time.monotonic()
        shares = sum(share(self.plan.configs[run_id], point) for run_id, point in under_way.items() if point)
        left = self._left(len(over) + shares) if len(over) < len(self.missing) else ""
        if self.live:
            self._draw(len(over), left, {} if last else under_way)
        else:
            self._say(over, left)
        if self.table_due and not last:
            self._first_table()

    def _ended(self, run_id: str) -> str | None:
        folder = store.run_folder(self.plan.root, run_id)
        return next((name for name in (store.RECORD, "failed.json") if (folder / name).exists()), None)

    def _begun(self, run_id: str) -> bool:
        """Whether the run was begun in this sweep: a killed one leaves a folder that looks as if it were under way."""
        try:
            began = os.stat(store.run_folder(self.plan.root, run_id) / "config.yaml").st_mtime
        except OSError:
            return False
        return began >= self._began_clock - POLL_S

    def _point(self, run_id: str) -> dict[str, float] | None:
        """step, epoch, tokens of the last evaluation, and the leading metric there if it was measured; None before."""
        suite, _, metric = self.plan.evaluation.primary.partition("/")
        try:
            rows = store.read_metrics(store.run_folder(self.plan.root, run_id))
        except OSError:
            return None
        if not rows:
            return None
        led = [row["value"] for row in rows if (row["suite"], row["metric"]) == (suite, metric)]
        point = {key: rows[-1][key] for key in ("step", "epoch", "tokens")}
        return point | ({"value": led[-1]} if led and led[-1] is not None else {})

    def _left(self, done: float) -> str:
        """`done`: runs that are over, with the shares of those under way."""
        if not done or self._began is None:
            return ""
        seconds = (time.monotonic() - self._began) / done * (len(self.missing) - done)
        return f"about {round(seconds / 60)} min left" if seconds >= 90 else f"about {max(1, round(seconds))} s left"

    def _draw(self, over: int, left: str, under_way: dict[str, dict[str, float] | None]) -> None:
        state = f"{over}/{len(self.missing)}" + (f", {left}" if left else "")
        self._progress.update(self._sweep, completed=over, state=state)
        for run_id in self._bars.keys() - under_way.keys():
            self._progress.remove_task(self._bars.pop(run_id))
        for run_id, point in under_way.items():
            if run_id not in self._bars and len(self._bars) < SHOWN:
                self._bars[run_id] = self._progress.add_task(self.names[run_id], total=1.0, state="")
            if run_id in self._bars and point:
                value = f", {self.plan.evaluation.primary} {point['value']:.3f}" if "value" in point else ""
                done = share(self.plan.configs[run_id], point)
                self._progress.update(self._bars[run_id], completed=done, state=f"step {point['step']}{value}")

    def _say(self, over: dict[str, str], left: str) -> None:
        """A line for each run that was not over, or not so, when it was last looked."""
        new = {run_id: ended for run_id, ended in over.items() if self._over.get(run_id) != ended}
        self._over |= new
        for number, (run_id, ended) in enumerate(new.items(), len(over) - len(new) + 1):
            said = self._result(run_id) if ended == store.RECORD else self._failure(run_id)
            line = f"{number}/{len(self.missing)} {self.names[run_id]}: {said}" + (f"; {left}" if left else "")
            self.console.print(Text(line))

    def _result(self, run_id: str) -> str:
        """The leading metric at the best validation point, and seconds of training; "done" where there is neither."""
        record = store.read(store.run_folder(self.plan.root, run_id)) or {}
        suite, _, metric = self.plan.evaluation.primary.partition("/")
        value = record.get("metrics", {}).get("best_val", {}).get(suite, {}).get(metric, {}).get("value")
        seconds = record.get("cost", {}).get("train_s")
        words = [f"{suite}/{metric} {value:.3f}"] if value is not None else []
        words += [f"{seconds:.0f} s of training"] if seconds is not None else []
        return ", ".join(words) or "done"

    def _failure(self, run_id: str) -> str:
        found = store.failure(store.run_folder(self.plan.root, run_id)) or {}
        return f"failed: {found.get('error', 'see failed.json')}"

    def _first_table(self) -> None:
        """Print the arms of the first pair once they are all there."""
        records = store.records(self.plan.root, {cell.run_id for cell in self.first_pair})
        if any(cell.run_id not in records for cell in self.first_pair):
            return
        self.table_due = False
        from experiments import report

        self.console.print("the first pair of arms (one pair decides nothing yet)")
        self.console.print(report.arm_table(self.first_pair, records, self.plan.evaluation))


def named(cell: Cell) -> str:
    """A run in words: its arm, its pair, and the levels of what is swept."""
    return f"{cell.arm} pair {cell.seeds['pair']}" + "".join(f" {key}={value}" for key, value in cell.levels.items())


def share(config: Config, point: dict[str, float]) -> float:
    """How much of its training budget a run has used at `point` (step, epoch, tokens): 0 to 1."""
    budget = config.training
    for used, whole in (("step", budget.steps), ("epoch", budget.epochs), ("tokens", budget.tokens)):
        if whole:
            return min(1.0, point[used] / whole)
    raise AssertionError("a config has one of the three")
