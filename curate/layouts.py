"""What a row looks like outside: Alpaca's fields, prompt and completion, chat messages, ShareGPT; there and back.

Of a conversation the last answer is the response, the question before it the instruction, and all turns before that
the input, as text; they are kept as they were in `turns` too, so that the row can be written as it was read.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

# What a field may be called when nobody says.
ALIASES: dict[str, tuple[str, ...]] = {
    "instruction": ("instruction", "prompt"),
    "input": ("input", "context"),
    "output": ("output", "completion", "response"),
    "category": ("category",),
    "near_miss": ("near_miss",),
}
_CHATS = ("messages", "conversations", "conversation")
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant"}
_SHAREGPT = {"user": "human", "assistant": "gpt"}

Turn = tuple[str, str]  # (role, content)


def fields_of(row: Any, names: Mapping[str, tuple[str, ...]]) -> dict[str, str | None]:
    """Our fields of one raw row; raises ValueError with the reason if it is bad."""
    if isinstance(row, ValueError):
        raise row
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, got {type(row).__name__}")
    turns = _conversation(row, names)
    values = {field: _text(row, field, aliases) for field, aliases in names.items() if turns is None or field in _EXTRA}
    values |= {"turns": _kept_turns(row)} if turns is None else _last_exchange(turns)
    for field in ("instruction", "output"):
        if values[field] is None:
            raise ValueError(f"{field} is missing (fields here: {', '.join(map(str, row)) or 'none'})")
    if not (values["output"] or "").strip():
        raise ValueError("output is empty")
    if not (values["instruction"] or "").strip() and not (values["input"] or "").strip():
        raise ValueError("instruction is empty")
    return values


_EXTRA = ("category", "near_miss")  # fields that stand beside a conversation


def _text(row: Mapping[str, Any], field: str, aliases: tuple[str, ...]) -> str | None:
    for name in aliases:
        value = row.get(name)
        if value is not None:
            _check_text(value, field)
            return value if value or field not in _EXTRA else None
    return None


def _check_text(value: Any, field: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{field} should be text, not {type(value).__name__}")
    try:
        value.encode()  # bytes that are no UTF-8 were read as lone surrogates, which JSON escapes can also hold
    except UnicodeEncodeError:
        raise ValueError(f"{field} is not valid UTF-8") from None


def _conversation(row: Mapping[str, Any], names: Mapping[str, tuple[str, ...]]) -> list[Turn] | None:
    """The turns of a row that is a conversation and has no plain response; else None."""
    if any(isinstance(row.get(name), str) for name in names["output"]):
        return None
    found = next((row[name] for name in _CHATS if isinstance(row.get(name), list)), None)
    if found is None and isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), list):
        found = [*row["prompt"], *row["completion"]]
    if found is None:
        return None
    return [_turn(turn, number) for number, turn in enumerate(found, 1)]


def _turn(turn: Any, number: int) -> Turn:
    if not isinstance(turn, dict):
        raise ValueError(f"turn {number} should be an object, not {type(turn).__name__}")
    role: Any = turn.get("role", turn.get("from"))
    content: Any = turn.get("content", turn.get("value"))
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    _check_text(role, f"the role of turn {number}")
    _check_text(content, f"turn {number}")
    return _ROLES.get(role, role), content


def _kept_turns(row: Mapping[str, Any]) -> str | None:
    """What this program wrote into the column `turns`; anything else of that name is no business of ours."""
    try:
        found = json.loads(row["turns"])
    except (KeyError, TypeError, ValueError):
        return None
    turns = isinstance(found, list) and all(
        isinstance(turn, list) and list(map(type, turn)) == [str, str] for turn in found
    )
    return row["turns"] if turns else None


def _last_exchange(turns: list[Turn]) -> dict[str, str | None]:
    last = next((at for at in reversed(range(len(turns))) if turns[at][0] == "assistant"), None)
    if last is None:
        raise ValueError("output is missing (no turn of an assistant)")
    if last == 0 or turns[last - 1][0] != "user":
        before = f"a turn of role {turns[last - 1][0]}" if last else "nothing"
        raise ValueError(f"instruction is missing (before the last answer stands {before})")
    context = turns[: last - 1]
    return {
        "instruction": turns[last - 1][1],
        "input": "\n\n".join(f"{role}: {content}" for role, content in context),
        "output": turns[last][1],
        "turns": json.dumps(context, ensure_ascii=False) if context else None,
    }


# --- and back -------------------------------------------------------------------------------------------------------


def _messages(row: Mapping[str, Any]) -> list[dict[str, str]]:
    context = json.loads(row["turns"]) if row.get("turns") else []
    asked = row["instruction"] if row.get("turns") or not row["input"] else f"{row['instruction']}\n\n{row['input']}"
    turns = [*context, ("user", asked), ("assistant", row["output"])]
    return [{"role": role, "content": content} for role, content in turns]


def _sharegpt(row: Mapping[str, Any]) -> dict[str, Any]:
    turns = [{"from": _SHAREGPT.get(t["role"], t["role"]), "value": t["content"]} for t in _messages(row)]
    return {"conversations": turns}


def _trl(row: Mapping[str, Any]) -> dict[str, Any]:
    messages = _messages(row)
    return {"prompt": messages[:-1], "completion": messages[-1:]}


# The fields that take the place of ours in a file; `rows` keeps ours. TRL and LLaMA-Factory read these as they are.
LAYOUTS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "rows": lambda row: {name: row[name] for name in ("instruction", "input", "output")},
    "messages": lambda row: {"messages": _messages(row)},
    "sharegpt": _sharegpt,
    "trl": _trl,
    "llama_factory": _sharegpt,
}


def arranged(row: Mapping[str, Any], layout: str) -> dict[str, Any]:
    """A row of the pool in this layout, with all that is known of it beside."""
    own = {"instruction", "input", "output", "turns"}
    beside = {name: value for name, value in row.items() if name not in own}
    return {**LAYOUTS[layout](row), **beside}


def llama_factory_entry(file_name: str) -> dict[str, Any]:
    """What LLaMA-Factory's dataset_info.json says of a file in ShareGPT's layout."""
    return {"file_name": file_name, "formatting": "sharegpt", "columns": {"messages": "conversations"}}
