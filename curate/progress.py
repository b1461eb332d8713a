"""Progress of long work on stderr: a bar on a terminal, a plain line now and then elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]  # (done, total)


@contextmanager
def progress(label: str) -> Iterator[Progress]:
    """A callable to report (done, total) to."""
    if not sys.stderr.isatty():
        printed = 0

        def lines(done: int, total: int) -> None:
            nonlocal printed
            tenth = 10 * done // max(1, total)
            if tenth > printed:
                printed = tenth
                print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)

        yield lines
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(label)
        yield lambda done, total: bars.update(task, completed=done, total=total)
