"""What is in a store, and what is to be done with it.

    python -m experiments.store list [experiment=NAME] [arm=NAME] [status=STATUS] [KEY=VALUE ...] [limit=100]
                                                   the runs, newest first; KEY is any key of their configs
    python -m experiments.store show RUN           config, figures, curve, cost, and why it failed
    python -m experiments.store compare RUN RUN    where two configs differ, then figures, curves and costs
    python -m experiments.store export FOLDER [EXPERIMENT ...]      finished runs and reports, in compact form
    python -m experiments.store export FILE.csv|FILE.parquet [KEY=VALUE ...]      every number in long form, for pandas
    python -m experiments.store import FOLDER      takes up what was exported to a folder; what is there stays
    python -m experiments.store verify             whether every record is what its run wrote
    python -m experiments.store gc [yes=true]      removes what is of no use any more, and asks first

RUN is an id or its beginning. All take store.root=FOLDER (default runs). A value may be several between commas.
Exit codes: 0 all well, 1 something is broken or was refused, 2 not a command.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from experiments import UserError, store

SETTING = re.compile(r"([A-Za-z_][\w.@/-]*)=(.*)", re.DOTALL)
WIDTH = 160  # of tables where there is no terminal to ask
LIMIT = 100  # rows of a listing


def main(arguments: Sequence[str]) -> int:
    """The command line above; returns the exit code."""
    words = [argument for argument in arguments if not SETTING.fullmatch(argument)]
    settings = {found[1]: found[2] for a in arguments if (found := SETTING.fullmatch(a))}
    if not words or {"-h", "--help"} & set(words):
        print(__doc__)
        return 0 if words else 2
    command, *words = words
    if command not in COMMANDS:
        print(__doc__)
        print(f"error: {command}: no such command; use one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    root = Path(settings.pop("store.root", "runs"))
    return COMMANDS[command](root, words, settings)


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def _expect(usage: str, given: Sequence[str], number: int, settings: Mapping[str, str], *known: str) -> None:
    """Raise UserError unless there are `number` words and no setting but `known` ones."""
    if len(given) != number:
        raise UserError(f"{usage.partition(' ')[0]}: {len(given)} names were given; use: {usage}")
    if unknown := [key for key in settings if key not in known]:
        takes = ", ".join([*known, "store.root"])
        raise UserError(
            f"{unknown[0]}={settings[unknown[0]]}: no such key here; {usage.partition(' ')[0]} takes {takes}"
        )


def _list(root: Path, words: Sequence[str], settings: dict[str, str]) -> int:
    from experiments import store_list

    limit = settings.pop("limit", str(LIMIT))
    _expect("list [KEY=VALUE ...]", words, 0, {})
    if limit != "all" and not (limit.isdigit() and int(limit)):
        raise UserError(f"limit={limit}: not a number of runs; give one above 0, or all")
    found = store_list.chosen(root, settings)
    most = len(found) if limit == "all" else int(limit)
    console = _console()
    if found:
        console.print(store_list.table(root, found, most))
    console.print(store_list.summary(found, min(most, len(found))))
    return 0


def _show(root: Path, words: Sequence[str], settings: dict[str, str]) -> int:
    from experiments import store_show

    _expect("show RUN", words, 1, settings)
    run = store_show.load(root, store_show.find(root, words[0]))
    _console().print(store_show.show(run, store.run_folder(root, run.id)))
    return 0


def _compare(root: Path, words: Sequence[str], settings: dict[str, str]) -> int:
    from experiments import store_show

    _expect("compare RUN RUN", words, 2, settings)
    one, two = (store_show.load(root, store_show.find(root, word)) for word in words)
    _console().print(store_show.compare(one, two))
    return 0


def _export(root: Path, words: Sequence[str], settings: dict[str, str]) -> int:
    from experiments import exchange, long_form, store_list

    if not words:
        raise UserError(
            "export: 0 names were given; use: export FOLDER [EXPERIMENT ...], or export FILE.csv|FILE.parquet"
        )
    if long_form.is_file(words[0]):
        _expect("export FILE.csv|FILE.parquet [KEY=VALUE ...]", words, 1, {})
        runs, rows = long_form.write(root, store_list.chosen(root, settings), Path(words[0]))
        print(f"{words[0]}: {rows} rows of {runs} runs")
        return 0
    _expect("export FOLDER [EXPERIMENT ...]", words[:1], 1, settings)
    for name, number in exchange.export(root, Path(words[0]), words[1:]).items():
        print(f"{name}: {number} runs")
    return 0


def _import(root: Path, words: Sequence[str], settings: dict[str, str]) -> int:
    from experiments import exchange

    _expect("import FOLDER", words, 1, settings)
    taken, known = exchange.take_in(root, Path(words[0]))
    print(f"{taken} runs taken into {root}, {known} were there already")
    return 0


def _verify(root: Path, words: Sequence[str], settings: dict[str, str]) -> int:
    from experiments import store_verify

    _expect("verify", words, 0, settings)
    if not root.is_dir():
        raise UserError(f"store.root={root}: no such folder; name a store with store.root=FOLDER")
    found = store_verify.verify(root)
    for name, reasons in found.broken.items():
        print(f"{name}: {'; '.join(reasons)}")
    for why in dict.fromkeys(found.unproved.values()):
        some = [name for name, reason in found.unproved.items() if reason == why]
        print(f"{len(some)} runs ({some[0]}{', ...' * (len(some) > 1)}): id not checked: {why}")
    hashed = len(found.whole) - len(found.unhashed)
    print(f"{len(found.whole)} records whole ({hashed} by their hash, {len(found.unhashed)} no hash),", end=" ")
    print(f"{len(found.broken)} broken" + "; the experiments that need them do them again" * bool(found.broken))
    return int(bool(found.broken))


def _gc(root: Path, words: Sequence[str], settings: dict[str, str]) -> int:
    from experiments import store_gc

    _expect("gc", words, 0, settings, "yes")
    sure = settings.get("yes", "false")
    if sure not in ("true", "false"):
        raise UserError(f"yes={sure}: neither true nor false; yes=true removes without a question")
    if not root.is_dir():
        raise UserError(f"store.root={root}: no such folder; name a store with store.root=FOLDER")
    store_gc.check_unused(root)
    found = store_gc.waste(root)
    if not found:
        print(f"{root}: nothing to remove")
        return 0
    locks = [one for one in found if one.why == store_gc.LOCK]
    for one in found:
        if one.why != store_gc.LOCK:
            print(f"{one.size / 1e6:9.2f} MB  {one.path}  ({one.why})")
    if locks:
        print(f"{len(locks)} lock files that nobody holds")
    print(f"{sum(one.size for one in found) / 1e6:9.2f} MB in all")
    if sure != "true" and not _agreed():
        print("nothing was removed (yes=true removes without a question)")
        return 1
    print(f"{store_gc.remove(found) / 1e6:.2f} MB removed")
    return 0


def _agreed() -> bool:
    try:
        return input("remove all this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


COMMANDS: dict[str, Callable[[Path, Sequence[str], dict[str, str]], int]] = {
    "list": _list, "show": _show, "compare": _compare, "export": _export, "import": _import, "verify": _verify,
    "gc": _gc,
}  # fmt: skip
