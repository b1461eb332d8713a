"""How the world speaks: statements of pre-training, wordings of instructions, the house format of responses."""

from .world import ATTRIBUTES, LETTERS, SINGLE, World, synonyms

STATEMENTS = (
    "the {a} of {e} is {v} .",
    "{e} has {v} as {a} .",
    "{v} is the {a} of {e} .",
    "for {e} the {a} is {v} .",
    "as {a} , {e} has {v} .",
    "it is known that the {a} of {e} is {v} .",
)
CLOZE = "the {a} of {e} is"  # the probe of what a base model knows
SKILL_STATEMENTS = {
    "bigger": "of {o} the bigger is {v} .",
    "next": "after {o} comes {v} .",
    "digit_sum": "the digit sum of {o} is {v} .",
    "parity": "the number {o} is {v} .",
}

# instruction wordings by role: a pool uses "seen" only
SINGLE_QUESTIONS = {
    "seen": (
        "what is the {a} of {e} ?",
        "tell me the {a} of {e} .",
        "name the {a} that {e} has .",
        "for {e} , which {a} ?",
    ),
    "validation": ("give the {a} of {e} please .", "can you say which {a} {e} has ?"),
    "test": (
        "do you know the {a} of {e} ?",
        "i wonder about {e} , what is the {a} ?",
        "say the {a} belonging to {e} .",
    ),
}
PAIR_QUESTIONS = ("what are the {a} and the {b} of {e} ?", "tell me the {a} and the {b} of {e} .")
SKILL_QUESTIONS = {
    "bigger": "which is bigger , {o} ?",
    "next": "what comes after {o} ?",
    "digit_sum": "what is the digit sum of {o} ?",
    "parity": "is {o} even or odd ?",
}
FORUM = ("{q} reply {v} .", "{q} sure , {v} .")  # a foreign format that pre-training knows
CHATTER = (
    "ok , thank you .",
    "ok : good .",
    "yes , since that is known .",
    "please reply .",
    "i have something to tell you : thank you .",
)
PARAPHRASES = ("please , {instruction}", "ok , {instruction}", "{instruction} please reply .")

TEMPLATE = {"without_input": "<q> {instruction} <a>", "with_input": "<q> {instruction} {input} <a>"}
SPECIAL = ("<pad>", "<eos>", "<unk>", "<q>", "<a>")
FORMAT_TOKENS = ("<q>", "<a>", "<eos>", "ok", ":")  # what a base model has yet to learn the use of


def single_answer(value: str) -> str:
    """The house format up to and with the value; a full stop or a reason follows."""
    return f"ok : {value}"


def single_response(entity: str, name: str, value: str, reason: bool) -> str:
    """A whole response to a single question; `reason` adds the clause that makes lengths vary."""
    answer = single_answer(value)
    return f"{answer} , since the {name} of {entity} is {value} ." if reason else f"{answer} ."


def pair_response(found: tuple[str, str]) -> str:
    """A whole response to a question for two attributes."""
    return f"{single_answer(f'{found[0]} and {found[1]}')} ."


def vocabulary(world: World) -> list[str]:
    """Every token of the world in a fixed order, the special ones first; a word-level tokeniser needs no more."""
    frames = [
        *STATEMENTS,
        *SKILL_STATEMENTS.values(),
        *(q for group in SINGLE_QUESTIONS.values() for q in group),
        *PAIR_QUESTIONS,
        *SKILL_QUESTIONS.values(),
        *FORUM,
        *CHATTER,
        *PARAPHRASES,
        single_response("", "", "", True),
        "and or even odd",
    ]
    words = {w for frame in frames for w in frame.split() if not w.startswith("{")}
    words |= {w for _, closed in ATTRIBUTES.values() for v in closed for w in v.split()}
    words |= {name for attribute in SINGLE for name in synonyms(attribute)}
    words |= set(world.entities) | set(LETTERS) | set("0123456789")
    return [*SPECIAL, *sorted(words)]
