"""How far a sweep is, told from the store: whichever launcher and machine the runs are on."""

import threading
import time

from hydra_plugins.paired_sweeper.plan import Plan
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments import store

POLL_S = 1.0
LINE_S = 15.0  # between two lines where there is no terminal to draw a bar on


class Monitor:
    """While entered, watches for records of `missing` runs; prints progress, and a first table after one whole pair."""

    def __init__(self, plan: Plan, missing: list[str], console: Console):
        self.plan, self.missing, self.console = plan, missing, console
        first = plan.cells[0].seeds["pair"] if plan.cells else 0
        self.first_pair = [cell for cell in plan.cells if cell.seeds["pair"] == first]
        self.table_due = any(cell.run_id in missing for cell in self.first_pair) and len(self.first_pair) > 1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._began = time.monotonic()
        self._said = (0, self._began)
        self._bar = Progress(
            TextColumn("runs"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Monitor":
        self._bar.start()
        self._task = self._bar.add_task("runs", total=len(self.missing), left="")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look(last=True)
        self._bar.stop()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            self._look()

    def _look(self, last: bool = False) -> None:
        over = sum(self._over(run_id) for run_id in self.missing)
        elapsed = time.monotonic() - self._began
        left = f"about {max(1, round(elapsed / over * (len(self.missing) - over) / 60))} min left" if over else ""
        if over == len(self.missing):
            left = ""
        self._bar.update(self._task, completed=over, left=left)
        said, at = self._said
        if not self.console.is_terminal and over > said and (last or time.monotonic() - at >= LINE_S):
            self.console.print(f"{over}/{len(self.missing)} runs, {elapsed / 60:.1f} min{', ' * bool(left)}{left}")
            self._said = (over, time.monotonic())
        if self.table_due and not last:
            self._first_table()

    def _over(self, run_id: str) -> bool:
        folder = store.run_folder(self.plan.root, run_id)
        return (folder / "record.json").exists() or (folder / "failed.json").exists()

    def _first_table(self) -> None:
        """Print the arms of the first pair once they are all there."""
        records = store.records(self.plan.root, {cell.run_id for cell in self.first_pair})
        if any(cell.run_id not in records for cell in self.first_pair):
            return
        self.table_due = False
        from experiments import report

        self.console.print("the first pair of arms (one pair decides nothing yet)")
        self.console.print(report.arm_table(self.first_pair, records, self.plan.evaluation))
