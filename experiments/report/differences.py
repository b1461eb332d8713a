"""What an arm is worth beside the arms that it must beat: `full`, and the best of its matched controls."""

from collections.abc import Sequence
from dataclasses import replace

from experiments.report.content import Arm, Difference, interval_of_units, missing
from experiments.table import REFERENCE

CONTROLS = ("random", "random_length_matched", "longest")  # selections that do not look at quality
SAME_SIZE = 0.02  # a control is matched where its rows are within this share of the arm's


def with_differences(arms: Sequence[Arm], mode: str) -> list[Arm]:
    """The arms with `to_full` and `to_control` set where there is such an arm at the same levels.

    Args:
        mode: max or min, the direction of the validation metric by which the best control is chosen.
    """
    found = []
    for arm in arms:
        full = next((other for other in arms if other.name == REFERENCE and _same_levels(arm, other)), None)
        control = None if arm.name in CONTROLS else _best_control(arm, arms, mode)
        found.append(
            replace(
                arm,
                to_full=_difference(arm, full) if full and full.label != arm.label else None,
                to_control=_difference(arm, control) if control else None,
            )
        )
    return found


def _same_levels(arm: Arm, other: Arm) -> bool:
    """Whether nothing that both have a level of differs: an arm without duplicates has none of their rate."""
    return all(
        missing(level) or missing(arm.levels.get(key)) or str(level) == str(arm.levels.get(key))
        for key, level in other.levels.items()
        if not key.startswith("duplication")
    )


def _best_control(arm: Arm, arms: Sequence[Arm], mode: str) -> Arm | None:
    """The matched control with the best mean validation score over the pairs that all of them have; the first of
    equals. The test metric has no say in it."""
    matched = [other for other in arms if other.name in CONTROLS and _matched(arm, other)]
    if not matched:
        return None
    common = set.intersection(*(set(control.chosen_by.index) for control in matched))
    if not common:
        return None
    sign = 1 if mode == "max" else -1
    return max(matched, key=lambda control: sign * float(control.chosen_by.loc[sorted(common)].mean()))


def _matched(arm: Arm, control: Arm) -> bool:
    rows, others = (one.means.get("data/rows") for one in (arm, control))
    if rows is None or others is None or arm.name == REFERENCE:
        return False
    return abs(others - rows) <= SAME_SIZE * rows and _same_levels(arm, control)


def _difference(arm: Arm, other: Arm) -> Difference | None:
    paired = (arm.scores - other.scores).dropna()
    mean, low, high = interval_of_units(paired)
    return None if mean is None else Difference(other.label, mean, low, high, len(paired))
