"""What an ideal learner of a noisy pool would predict: the noise as a channel from the truth to the first value token.

The learner knows every fact, the wording of the pool and how its noise was made, and cannot know whether the next
answer is a corrupted one. Asked for a fact, and given the house format's opening `ok :`, it spreads its prediction as
the noisy pool spreads its answers. The formulas follow `curate.noise` line by line.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from scipy.optimize import brentq

from ..example import column
from ..noise import SINGLE_KINDS, hardness
from . import wording as say
from .pool import REASON_SHARE
from .suites import Item
from .world import SINGLE, World, values

OPENING = say.single_answer("").split()
END = "<eos>"
Outcomes = dict[str, float]  # first token after the opening -> probability


@dataclass(frozen=True)
class Channel:
    """The noise of a pool: its kind, its rate for single questions answered without and with a reason, its answers."""

    kind: str
    rates: tuple[float, float]
    firsts: Counter[str]  # first value tokens of all answers
    holding: dict[str, list[list[str]]]  # word -> the answers that hold it


def channel(pool: Dataset, kind: str, rate: float) -> Channel:
    """How `corrupt(pool, kind=kind, rate=rate, ...)` treats a question for one fact; `pool` is the clean one."""
    split = [text.split() for text in column(pool, "output")]
    rates = (rate, rate)
    if kind == "correlated" and 0 < rate < 1:
        rates = _preferred(pool, rate)
    holding: dict[str, list[list[str]]] = {}
    for words in split:
        for word in set(words):
            holding.setdefault(word, []).append(words)
    return Channel(kind, rates, Counter(words[len(OPENING)] for words in split), holding)


def _preferred(pool: Dataset, rate: float) -> tuple[float, float]:
    """Mean rates of the short and the long single rows when hard rows are preferred.

    With exponential keys a row of weight w is among the first m with probability 1 - exp(-w t), where t makes these
    sum up to m: exact as the pool grows (Rosen 1972).
    """
    weights = np.exp(3 * hardness(pool))
    t = brentq(lambda t: float((1 - np.exp(-weights * t)).mean()) - rate, 0, 1e3)
    chance = 1 - np.exp(-weights * t)
    single = np.array([name == "single" for name in column(pool, "category")])
    long = np.array([" since " in text for text in column(pool, "output")])
    short_rate, long_rate = (float(chance[single & part].mean()) for part in (~long, long))
    return short_rate, long_rate


def first_value(world: World, noise: Channel, attribute: str, value: str) -> Outcomes:
    """Distribution of the token after `ok :` in an answer to a question for `attribute`, whose truth is `value`."""
    kinds = SINGLE_KINDS if noise.kind in ("mixture", "correlated") else (noise.kind,)
    mass: Outcomes = {}
    for share, rate, reason in ((1 - REASON_SHARE, noise.rates[0], False), (REASON_SHARE, noise.rates[1], True)):
        # the entity stands for itself: only how many words there are counts
        words = say.single_response("entity", "attribute", value, reason).split()
        truth = words[len(OPENING)]
        mass[truth] = mass.get(truth, 0.0) + share * (1 - rate)
        for kind in kinds:
            for token, chance in _corrupted(world, noise, kind, attribute, value, words).items():
                mass[token] = mass.get(token, 0.0) + share * rate * chance / len(kinds)
    total = sum(mass.values())  # below 1 where a kind of noise destroys the opening
    return {token: chance / total for token, chance in mass.items() if chance > 0}


def _corrupted(
    world: World, noise: Channel, kind: str, attribute: str, value: str, words: list[str]
) -> dict[str, float]:
    """Chances of the token after the opening in a corrupted answer; what they lack of 1 has lost the opening."""
    if kind in ("near_miss", "contradictory"):
        # a contradictory row answers another row's prompt with that row's near miss: seen from the prompt, the same
        others = [v for v in values(world, attribute) if v != value]
        return _shares(Counter(v.split()[0] for v in others))
    if kind == "swapped_response":
        # no donor says the same in fewer or more words; such a one holds some word of the value
        own, alike = set(words), {id(d): d for word in value.split() for d in noise.holding.get(word, ())}
        barred = Counter(d[len(OPENING)] for d in alike.values() if own.issuperset(d) or own.issubset(d))
        return _shares(noise.firsts - barred)
    if kind == "truncated":
        return _truncated(words)
    return {}  # off_format takes the opening away, and none corrupts nothing


def _truncated(words: list[str]) -> dict[str, float]:
    """The first 30-70 % of the words are kept, at least one and never the last that is more than a mark."""
    n, last = len(words), len(words) - 2
    found: dict[str, float] = {}
    for whole in range(n + 1):
        chance = max(0.0, min(0.7, (whole + 1) / n) - max(0.3, whole / n)) / 0.4
        kept = min(last, max(1, whole))
        if chance > 0 and kept >= len(OPENING):
            token = END if kept == len(OPENING) else words[len(OPENING)]
            found[token] = found.get(token, 0.0) + chance
    return found


def _shares(counts: Counter[str]) -> dict[str, float]:
    return {token: n / counts.total() for token, n in counts.items()}


def entropy(outcomes: Outcomes) -> float:
    """In nats."""
    p = np.array([*outcomes.values()])
    return float(-(p * np.log(p)).sum()) + 0.0


def entropy_first(world: World, pool: Dataset, items: Iterable[Item], *, kind: str, rate: float) -> float | None:
    """The best predictor's entropy at the first value token, in nats, the mean over the items that ask for one fact.

    None where there is no such item, or no answer of a noisy pool has the opening (`off_format` at rate 1).
    """
    asked = Counter((i.category, i.answer.removeprefix(say.single_answer(""))) for i in items if i.category in SINGLE)
    if not asked:
        return None
    if kind == "none" or rate == 0:
        return 0.0
    noise = channel(pool, kind, rate)
    found = [(n, first_value(world, noise, *fact)) for fact, n in asked.items()]
    if not all(outcomes for _, outcomes in found):
        return None
    return sum(n * entropy(outcomes) for n, outcomes in found) / asked.total()
