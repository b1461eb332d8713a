"""Composes `curate` and `train` into runs, evaluates, records, and judges claims."""

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn


class UserError(ValueError):
    """A mistake of the user's: one line that names the key, the value and the mend."""


def command_line(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Leave by what `main` makes of the arguments; a mistake, or a file that cannot be had, is one line."""
    try:
        sys.exit(main(sys.argv[1:]))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
