"""The one exception for a user's mistake, apart so that `import curate` needs no third-party package."""

from collections.abc import Mapping, Sequence
from pathlib import Path


class UserError(ValueError):
    """A user's mistake. The message is one line that names the key, its value and how to mend it."""


def check_has_keys(name: str, value: object) -> None:
    """Raise UserError where a part of a config that has keys of its own was replaced by a value."""
    if not isinstance(value, Mapping):
        shown = "null" if value is None else value
        raise UserError(f"{name}={shown}: is no value but has keys; set {name}.KEY=...; --help lists them")


def group_mistake(error: Exception, arguments: Sequence[str], conf: Path) -> str | None:
    """Hydra's complaint about a group that was given a number or null, as one line; None: the error is another one."""
    if not str(error).startswith("Config group override must be"):
        return None
    for argument in arguments:
        group, _, value = argument.partition("=")
        if (folder := conf / group).is_dir() and not (folder / f"{value}.yaml").is_file():
            options = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
            return f"{argument}: no such option; use one of {options}"
    return "a group (data, noise, arm, ...) was given a number or null; give the name of one of its files in conf/"
