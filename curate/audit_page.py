"""The figures of an audit as one HTML file: no request, no script, light or dark, wide or narrow."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from curate.card import headline

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --card: #f6f7f9; --ink: #1d2126; --muted: #5c6670; --grid: #e3e6ea;
  --c0: #0072b2; --c1: #c04f00; --pool: #aab4be }
@media (prefers-color-scheme: dark) { :root { --page: #15181c; --card: #1d2126; --ink: #e8eaed; --muted: #9aa4ae;
  --grid: #2e343b; --c0: #5ab4f0; --c1: #ff8d45; --pool: #59636e } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem }
h1 { font-size: 1.75rem; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 .4rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 3rem 0 .8rem } p { margin: .5rem 0 }
.muted, figcaption { color: var(--muted) } figcaption, .note { font-size: .9rem }
ul.found { background: var(--card); border-radius: .6rem; margin: 1.5rem 0 0; padding: 1rem 1.25rem 1rem 2.2rem }
figure { margin: 0 } svg { display: block; width: 100%; height: auto; max-width: 44rem }
.scroll { overflow-x: auto } .beyond { color: var(--c1); font-weight: 600 }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; width: 100% }
th, td { text-align: right; padding: .4rem .7rem; border-bottom: 1px solid var(--grid); white-space: nowrap }
th { color: var(--muted); font-weight: 500 }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; min-width: 7rem;
  overflow-wrap: anywhere }
tr.group td { color: var(--muted); padding-top: 1.1rem; font-size: .82rem; letter-spacing: .03em }
dl.forest { margin: 0; font-size: .88rem; font-variant-numeric: tabular-nums }
dl.forest > div { display: grid; grid-template-columns: 11rem 1fr 14rem; gap: 0 1rem; align-items: center;
  padding: .2rem 0; border-bottom: 1px solid var(--grid) }
dl.forest dd { margin: 0 } dl.forest dd:last-child { text-align: right }
dl.forest svg { max-width: none; height: 1.6rem }
@media (max-width: 40rem) { main { padding-top: 1.5rem } dl.forest > div { grid-template-columns: 1fr auto }
  dl.forest dd:nth-child(2) { grid-column: 1 / -1; grid-row: 2 } }
"""
GROUPS = {"size": "size", "style": "style", "score": "scores", "diversity": "diversity"}
MEASURES_NOTE = (
    "Means over the rows, and diversity. Random: the mean of {reference}; the interval is where one more random"
    " selection would lie. What is marked with * lies beyond it when the number of measures is reckoned with. Shares of"
    " distinct words and bytes are taken on equally many words of every set, for they fall with the amount of text;"
    " entropy of the whole pool is not comparable with that of a part."
)
VALIDITY_NOTE = (
    "AUROC: {how}. 0.5 is chance. A scorer that is no better than “longer wins” has shown nothing but a taste for"
    " length, and one well below 0.5 prefers the noise."
)
PAIRS_NOTE = (
    "Accuracy: {how}. A scorer that goes by length alone has a balanced accuracy of 0.5, however well it does on the"
    " plain one."
)
AGREEMENT_NOTE = (
    "Spearman’s rank correlation with its interval of 95 %, and the share that the best rows of the two have in common,"
    " as many as were kept; chance is what two random sets share."
)
BIAS_NOTE = (
    "The same rows with an edit that leaves what is right and wrong as it is: how far their score moves, in standard"
    " deviations of the scores, with a paired t interval of 95 %. A broad mark and *: told from zero with the"
    " number of edits reckoned with (Holm). The last edit does harm, and should move the score down."
)
NOISE_NOTE = "Share removed with Wilson’s interval; a random selection of this size removes {random:.1%} of every kind."


def page(figures: Mapping[str, Any], title: str) -> str:
    """The page. `figures` are those of `curate.audit.audit`; all text of data and models in them is escaped."""
    rows = figures["rows"]
    summary = figures.get("accounts") or f"{rows['kept']} of {rows['before']} rows kept"
    found = "".join(f"<li>{_e(line)}</li>" for line in headline(figures))
    parts = [f'<h1>{_e(title)}</h1><p class="muted">{_e(summary)}</p><ul class="found">{found}</ul>']
    tokens = figures["tokens"]
    parts.append(
        f"<h2>Before and after</h2>\n{_measures(figures['measures'])}"
        + _note(MEASURES_NOTE.format(reference=figures["reference"].split(";")[0]))
        + _note(
            f"Tokens of request and response: {tokens['before']:,} before, {tokens['kept']:,} kept ({tokens['how']})."
        )
        + (_note(f"No embedding spread: {figures['embeddings']}.") if figures["embeddings"] else "")
    )
    parts.append("<h2>Length of responses</h2>\n" + _histogram(figures["lengths"]))
    parts.append("<h2>Categories</h2>\n" + _categories(figures["categories"]))
    parts.append("<h2>Noise</h2>\n" + _noise(figures["noise"]))
    parts.append("<h2>Does the scorer see the noise?</h2>\n" + _validity(figures["validity"]))
    parts.append("<h2>Does it agree with people?</h2>\n" + _pairs(figures))
    parts.append("<h2>Do scorers agree?</h2>\n" + _agreement(figures["agreement"]))
    parts.append("<h2>What moves the scorer that should not?</h2>\n" + _bias(figures))
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_e(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _e(text: Any) -> str:
    # a lone surrogate in the data is no UTF-8
    return html.escape(str(text).encode(errors="replace").decode(), quote=True)


def _note(text: str) -> str:
    return f'<p class="muted note">{_e(text)}</p>'


def _n(value: float | None) -> str:
    """Three figures or so; a dash for what is not known."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"


def _between(low: float | None, high: float | None, digits: int | None = None) -> str:
    if low is None or high is None:
        return "–"
    return f"{_n(low)} to {_n(high)}" if digits is None else f"{low:.{digits}f} to {high:.{digits}f}"


def _f(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already."""
    head = "".join(f'<th scope="col">{_e(c)}</th>' for c in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _marked(text: str, beyond: bool) -> str:
    return f'<span class="beyond">{text} *</span>' if beyond else text


def _measures(measures: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for group, label in GROUPS.items():
        members = [m for m in measures if m["group"] == group]
        if members:
            rows.append([f"<em>{_e(label)}</em>", "", "", "", ""])
        for m in members:
            kept = _marked(_n(m["kept"]), m["beyond_chance"])
            rows.append([_e(m["name"]), _n(m["before"]), kept, _n(m["random"]), _between(m["low"], m["high"])])
    return _table(["", "before", "kept", "random", "interval of random"], rows)


def _histogram(lengths: Mapping[str, Any]) -> str:
    """Shares of rows by words, on a logarithmic axis: the pool as bars, what was kept as a line of steps."""
    width, height, left, base = 640, 250, 34, 212
    edges, before, kept = lengths["edges"], lengths["before"], lengths["kept"]
    most = max(*before, *kept)
    step = (width - left - 8) / len(before)
    x = [left + at * step for at in range(len(edges))]

    def y(share: float) -> float:
        return base - share / most * (base - 14)

    bars = "".join(
        f'<rect x="{x[at] + 0.5:.1f}" y="{y(share):.1f}" width="{step - 1:.1f}" height="{base - y(share):.1f}"'
        ' fill="var(--pool)"/>'
        for at, share in enumerate(before)
    )
    steps = "".join(f"L{x[at]:.1f} {y(share):.1f}L{x[at + 1]:.1f} {y(share):.1f}" for at, share in enumerate(kept))
    line = f'<path d="M{x[0]:.1f} {base}{steps}L{x[-1]:.1f} {base}" fill="none" stroke="var(--c0)" stroke-width="2"/>'
    apart = max(1, round(len(edges) / 7))
    ticks = "".join(
        f'<text x="{x[at]:.1f}" y="{base + 18}" text-anchor="middle">{_n(edges[at])}</text>'
        for at in range(0, len(edges), apart)
    )
    ticks += "".join(
        f'<text x="{left - 5}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>' for share in (0, most)
    )
    quantiles = lengths["quantiles"]
    rows = [
        [name] + [_n(quantiles[q][key]) for q in quantiles] for name, key in (("before", "before"), ("kept", "kept"))
    ]
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="Histogram of words in a response, before'
        f' and after" font-size="12" fill="var(--muted)">{bars}{line}{ticks}<text x="{width - 8}" y="{height - 4}"'
        ' text-anchor="end">words</text></svg><figcaption>Share of rows by words in the response. Bars: before; line:'
        " kept. The axis is stretched where responses are short.</figcaption></figure>"
        + _table(["quantile of words", *(f"{float(q):.0%}" for q in quantiles)], rows)
    )


def _categories(categories: Mapping[str, Any]) -> str:
    rows = []
    for c in categories["rows"]:
        share = _marked(f"{c['share_kept']:.1%}", c["beyond_chance"])
        expected = f"{c['low']:.1%} to {c['high']:.1%}"
        rows.append([_e(c["name"]), f"{c['before']:,}", f"{c['kept']:,}", f"{c['share_before']:.1%}", share, expected])
    note = f"By {categories['by']}. The most frequent ones; the interval is that of a random selection."
    return _table(["", "before", "kept", "share before", "share kept", "interval of random"], rows) + _note(note)


def _noise(noise: Sequence[Mapping[str, Any]] | None) -> str:
    if not noise:
        return _note("The ledger knows of no noise in these rows.")
    rows = []
    for r in noise:
        beyond = not r["low"] <= r["random"] <= r["high"]
        share = _marked("–" if r["share"] is None else f"{r['share']:.1%}", beyond)
        interval = f"{r['low']:.1%} to {r['high']:.1%}"
        rows.append([_e(r["kind"]), f"{r['rows']:,}", f"{r['kept']:,}", f"{r['removed']:,}", share, interval])
    table = _table(["", "rows", "kept", "removed", "share removed", "interval"], rows)
    return table + _note(NOISE_NOTE.format(random=noise[0]["random"]))


def _validity(validity: Mapping[str, Any]) -> str:
    if not validity["rows"]:
        return _note(
            "Without noise that the ledger knows of, this cannot be said; noise=mixture noise.rate=0.2 plants some."
        )
    kinds = list(dict.fromkeys(r["kind"] for r in validity["rows"]))
    scorers = list(dict.fromkeys(r["scorer"] for r in validity["rows"]))
    cells = {
        (r["scorer"], r["kind"]): f'{_f(r["auroc"])}<br><span class="muted">{_between(r["low"], r["high"], 2)}</span>'
        for r in validity["rows"]
    }
    rows = [[_e(scorer), *(cells[scorer, kind] for kind in kinds)] for scorer in scorers]
    return _table(["AUROC", *kinds], rows) + _note(VALIDITY_NOTE.format(how=validity["how"]))


def _pairs(figures: Mapping[str, Any]) -> str:
    pairs = figures["pairs"]
    if not pairs:
        return _note(f"Not known: {figures.get('no_pairs') or 'no preference pairs were given'}.")
    rows = [
        [_e(r["scorer"]), f"{r['pairs']:,}", _f(r["accuracy"]), _between(r["low"], r["high"], 3),
         _f(r["balanced"]), _between(r["balanced_low"], r["balanced_high"], 3)]
        for r in pairs["rows"]
    ]  # fmt: skip
    return _table(["", "pairs", "accuracy", "interval", "balanced", "interval"], rows) + _note(
        PAIRS_NOTE.format(how=pairs["how"])
    )


def _agreement(agreement: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [f"{_e(r['a'])} and {_e(r['b'])}", _f(r["rho"]), _between(r["low"], r["high"], 3), f"{r['overlap']:.1%}",
         f"{r['chance']:.1%} ({r['chance_low']:.1%} to {r['chance_high']:.1%})"]
        for r in agreement
    ]  # fmt: skip
    return _table(["", "rank correlation", "interval", "overlap", "chance"], rows) + _note(AGREEMENT_NOTE)


def _bias(figures: Mapping[str, Any]) -> str:
    effects = [effect for effect in figures["bias"] or [] if effect["effect"] is not None]
    if not effects:
        reason = figures.get("no_bias") or "the scorer was not probed, or its scores are constant"
        return _note(f"Not known: {reason}.")
    far = 1.1 * max(max(abs(e["low"]), abs(e["high"])) for e in effects) or 1.0
    items = []
    for effect in effects:
        told = effect["p_holm"] is not None and effect["p_holm"] < 0.05
        low, middle, high = (50 + 50 * effect[name] / far for name in ("low", "effect", "high"))
        colour = "var(--c1)" if effect["harmless"] else "var(--muted)"
        mark = (
            f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{effect["effect"]:+.2f}">'
            '<line x1="50" x2="50" y1="0" y2="10" stroke="var(--muted)" vector-effect="non-scaling-stroke"/>'
            f'<line x1="{low:.2f}" x2="{high:.2f}" y1="5" y2="5" stroke="{colour}" stroke-width="2"'
            ' vector-effect="non-scaling-stroke"/>'
            f'<line x1="{middle:.2f}" x2="{middle:.2f}" y1="1.5" y2="8.5" stroke="{colour}"'
            f' stroke-width="{6 if told else 2}" vector-effect="non-scaling-stroke"/></svg>'
        )
        value = _marked(f"{effect['effect']:+.2f}", told and effect["harmless"])
        value += f' <span class="muted">({effect["low"]:+.2f} to {effect["high"]:+.2f})</span>'
        value += f'<br><span class="muted">{effect["rises"]:.0%} of {effect["rows"]} rise</span>'
        items.append(f"<div><dt>{_e(effect['edit'])}</dt><dd>{mark}</dd><dd>{value}</dd></div>")
    return f'<dl class="forest">{"".join(items)}</dl>' + _note(BIAS_NOTE)
