"""The simulator: a page that says what the loss would be at sizes, noise and copies that were not run.

What was fitted goes into the page as JSON, and the page evaluates it where its sliders stand (templates/simulator.js).
BokehJS is in the page: it opens from disk and asks for nothing.
"""

import math
from typing import Any

import numpy as np
from markupsafe import Markup

from experiments import hull, surface
from experiments.prediction import LEVEL
from experiments.report.page import TEMPLATES, Section, alone, environment
from experiments.report.simulator_figures import bokeh_script, embedded
from experiments.slices import Slice, Slices

STEPS = 16  # of the slider of rows for each doubling
FORMULAS = {  # markup
    "product": "floor + A · rows<sup>−alpha</sup> · (noise + eta0)<sup>beta</sup>",
    "additive": "floor + A · rows<sup>−alpha</sup> + B · noise<sup>beta</sup>",
    "effective": "floor + A · (rows · (1 − noise)<sup>gamma</sup>)<sup>−alpha</sup>",
    "interaction": (
        "floor + A · rows<sup>−alpha</sup> + B · noise<sup>beta</sup>"
        " + C · rows<sup>−alpha</sup> · noise<sup>beta</sup>"
    ),
}
MEANINGS = {  # markup
    "floor": "loss that no data takes away",
    "A": "height of the part that falls with rows",
    "alpha": "how fast more rows help",
    "B": "height of the part that rises with noise",
    "beta": "how fast noise harms",
    "C": "height of the part that rises with noise and falls with rows",
    "eta0": "noise that clean data is as if it had",
    "gamma": "how much noise takes from the rows that count; at 1 noisy rows count for nothing",
    "delta": "how much copies take from what counts, as (1 − share)<sup>delta</sup>; at 1 they count for nothing",
    "kappa": "how many noisy rows of the first combination one noisy row is as bad as",
    "shift": "by how much the logarithm of the loss is higher",
}


def section(found: Slices) -> Section:
    """The simulator as a part of a page."""
    own = (TEMPLATES / "simulator.js").read_text(encoding="utf-8")
    templates = environment()
    # Bokeh's references must stand after what they refer to; NaN is no JSON
    templates.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
    markup = templates.get_template("simulator.html").render(
        found=found,
        axes=found.axes,
        options={key: options(found, key) for key in found.keys},
        charts=charts(found),
        span=_span(found),
        parts=[_part(found, one) for one in found.slices],
        level=f"{100 * LEVEL:g} %",
        data=payload(found),
    )
    style = (TEMPLATES / "simulator.css").read_text(encoding="utf-8")
    return Section("Simulator", Markup(markup), style, f"{bokeh_script()}\n{own}")


def page(found: Slices, title: str) -> str:
    """The simulator as a page of its own."""
    return alone(title, section(found))


# --- numbers ----------------------------------------------------------------------------------------------------------


def payload(found: Slices) -> dict[str, Any]:
    """All that the script computes with, as plain JSON."""
    sizes = _sizes(found)
    figures, models = embedded(found, sizes)
    return {
        "metric": found.metric,
        "copies": found.axes.copies is not None,
        "unique": surface.UNIQUE,
        "edge": hull.EDGE,
        "start": {"smallest": sizes[0], "steps": STEPS, "sizes": sizes},
        "slices": [_numbers(found, one) for one in found.slices],
        "figures": figures,
        "models": models,
    }


def _numbers(found: Slices, one: Slice) -> dict[str, Any]:
    made = one.prediction
    names = list(made.fit.values)
    return {
        "choice": [options(found, key).index(one.choice[key]) for key in found.keys],
        "form": made.fit.form,
        "names": names,
        "fit": [made.fit.values[name] for name in names],
        "refits": [[[f.values[name] for name in names] for f in group] for group in made.refits],
        "cell": made.cell,
        "t": made.t_cell,
        "fresh": made.fresh,
        "pairs": made.pairs,
        "bases": made.bases,
        "leftOut": made.left_out,
        "hull": {key: getattr(one.hull, key).tolist() for key in ("origin", "scale", "normals", "offsets")},
        "cells": np.column_stack([one.cells, one.values.mean(0)]).tolist(),
        "start": start_of(one),
    }


def start_of(one: Slice) -> list[float]:
    """The measured cell where the sliders stand first: in the middle, where a noisy row's worth is known if it can."""
    middle = [np.median(np.log(one.cells[:, 0])), np.median(one.cells[:, 1]), 0.0]
    places = np.column_stack([np.log(one.cells[:, 0]), one.cells[:, 1:]])
    far = (np.abs(places - middle) / np.maximum(np.ptp(places, axis=0), 1e-12)).sum(1)
    for i, (n, eta, d) in enumerate(one.cells):
        clean = surface.equal_size(one.prediction.fit, n, eta, 0.0, d) if eta > 0 else math.nan
        if not (math.isfinite(clean) and one.inside(*np.array([clean, 0.0, d]))):
            far[i] += one.cells.shape[1]  # further than any other
    return [float(x) for x in one.cells[np.argmin(far)]]


def _sizes(found: Slices) -> list[float]:
    return sorted({float(n) for one in found.slices for n in one.cells[:, 0]})


def _span(found: Slices) -> dict[str, int]:
    """The ends of the slider of rows, in steps from the smallest size: a doubling beyond what was measured."""
    sizes = _sizes(found)
    return {"least": -STEPS, "most": round(STEPS * math.log2(sizes[-1] / sizes[0])) + STEPS}


# --- words ------------------------------------------------------------------------------------------------------------


def options(found: Slices, key: str) -> list[str]:
    """The values of a drop-down, in the order of the surfaces."""
    return list(dict.fromkeys(one.choice[key] for one in found.slices))


def charts(found: Slices) -> list[tuple[str, str]]:
    """(name, heading) of the figures."""
    lines = ["rows", "noise", "copies"] if found.axes.copies else ["rows", "noise"]
    return [*((name, f"{found.metric} over {name}") for name in lines), ("iso", "Rows that are as good, over noise")]


def _part(found: Slices, one: Slice) -> dict[str, Any]:
    """What is said of a slice: (columns, rows) of its tables, and words."""
    made = one.prediction
    names = [name for name in made.fit.values if not one.own or name in one.own]
    forms = [
        (f"{form} (used here)" if form == made.fit.form else form, f"{error:.3g}", Markup(FORMULAS[form]))
        for form, error in one.left_out.items()
    ]
    parameters = [(name, _value(made.fit.values[name]), _interval(one, name), Markup(MEANINGS[name])) for name in names]
    cells = [
        (f"{n:,.0f}", f"{eta:g}", f"{d:g}", f"{y:.3f}", f"{said:.3f}")
        for (n, eta, d), y, said in zip(one.cells, one.values.mean(0), made.fit.predict(*one.cells.T), strict=True)
    ]
    return {
        "own": ", ".join(one.own),
        "whole": f"{found.slices[0].prediction.left_out:.3g}",
        "error": f"{made.left_out:.3g}",
        "made": made,
        "notes": [*one.notes, *(f"these cells do not tell {name}" for name in made.fit.at_bound)],
        "forms": (["form", "off by, in the logarithm", "the loss is"], forms),
        "parameters": (["parameter", "value", f"{100 * LEVEL:g} % interval", "what it says"], parameters),
        "cells": (["rows", "noise", "copies", "measured", "surface"], cells),
    }


def _interval(one: Slice, name: str) -> str:
    made = one.prediction
    half = made.t_cell * float(np.sqrt(made.variance(lambda f: f.values[name])))
    return f"{_value(made.fit.values[name] - half)} to {_value(made.fit.values[name] + half)}"


def _value(x: float) -> str:
    return f"{x:.3g}".replace("-", "−")
