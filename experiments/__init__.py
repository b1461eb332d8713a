"""Composes `curate` and `train` into runs, evaluates, records, and judges claims."""

import os
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


def mistaken(error: Exception) -> NoReturn:
    """Leave with a user's mistake as one line on stderr, and exit code 2."""
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    sys.exit(2)


def hydra_command(app: Callable[[], None]) -> None:
    """Run a Hydra app of its own config; what Hydra finds wrong is one line on stderr, an interrupt exit code 130."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands its errors on instead of printing them at length
    try:
        app()
    except (HydraException, OmegaConfBaseException) as error:
        mistaken(error)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
