"""Rows of other projects' formats as rows of ours: LLaVA, R1-V, EasyR1, TRL, VQA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from mmrl.data.answers import answer_block
from mmrl.data.files import DataError

Schema = Literal["mmrl", "llava", "r1v", "easyr1", "vqa", "trl"]
SCHEMAS: tuple[Schema, ...] = get_args(Schema)
NEEDED: dict[Schema, frozenset[str]] = {
    "mmrl": frozenset({"text"}),
    "llava": frozenset({"conversations"}),
    "r1v": frozenset({"problem", "solution"}),
    "easyr1": frozenset({"problem", "answer"}),
    "vqa": frozenset({"question", "answer"}),
    "trl": frozenset({"prompt"}),
}
"""The columns that tell a format."""
PICTURES = ("images", "image", "path")
"""Columns that hold pictures; the first one that is there counts."""
MARK = "<image>"
COLUMNS = {"text": "prompt", "images": "images", "answer": "answer"}
"""What `--columns` can name, and the column of TRL's format that it becomes."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One prompt; pictures are still paths or bytes."""

    text: str
    images: list[Any]
    answer: str | None
    metadata: dict[str, str | int | float | bool] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    """Columns that hold lists or objects, which metadata cannot."""


def recognize(row: Row, where: str) -> Schema:
    """The one format whose columns the row has; DataError when none or several fit.

    A column `prompt` stands beside those of other formats too, so TRL's counts where no other fits.
    """
    having: list[Schema] = [name for name in SCHEMAS if set(row) >= NEEDED[name]]
    fitting: list[Schema] = [name for name in having if name != "trl"] or having
    if len(fitting) == 1:
        return fitting[0]
    known = "; ".join(f"{name}: {', '.join(sorted(NEEDED[name]))}" for name in SCHEMAS)
    if fitting:
        raise DataError(
            f"{where}: the columns fit {' and '.join(fitting)}; say --format {fitting[0]}, ..."
        )
    raise DataError(
        f"{where}: no known format has the columns {', '.join(row)} (known: {known}); say which "
        "is which with --columns text=...,images=...,answer=..."
    )


def renamed(row: Row, columns: Mapping[str, str], where: str) -> Row:
    """The row as TRL's, whose columns `columns` names by what they hold: text, images, answer."""
    gone = next((name for name in columns.values() if name not in row), None)
    if gone is not None:
        raise DataError(f"{where}: no column '{gone}' (there: {', '.join(row)})")
    others = {name: value for name, value in row.items() if name not in columns.values()}
    return others | {COLUMNS[what]: row[name] for what, name in columns.items()}


def entries(schema: Schema, row: Row, where: str) -> Iterator[Entry]:
    """The prompts of one row; DataError names the field that is missing or wrong."""
    missing = sorted(NEEDED[schema] - set(row))
    if missing:
        raise DataError(f"{where}: field '{missing[0]}' is missing; {schema} rows have it")
    yield from CONVERTERS[schema](row, where)


def _mmrl(row: Row, where: str) -> Iterator[Entry]:
    if row.get("videos"):
        raise DataError(f"{where}: field 'videos': only pictures are converted")
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise DataError(f"{where}: field 'metadata': expected an object, got {metadata!r:.80}")
    answer = None if row.get("answer") is None else _answer(row, where)
    flat, left_out = _rest({**metadata, **row}, used=("text", "answer", "metadata", "videos"))
    yield Entry(_text(row, "text", where), _images(row), answer, flat, left_out)


def _llava(row: Row, where: str) -> Iterator[Entry]:
    """Each question of a conversation is a prompt; the turns before it stand in its text."""
    turns = _turns(row["conversations"], where)
    pictures = _images(row)
    marks = sum(question.count(MARK) for question, _ in turns)
    _check_marks(marks, pictures, where, "conversations")
    metadata, left_out = _rest(row, used=("conversations",))
    told = ""
    for number, (question, answer) in enumerate(turns):
        text = told + (f"User: {question}" if told else question)
        turn = {"turn": number} if len(turns) > 1 else {}
        yield Entry(placed(text), pictures, answer, metadata | turn, left_out)
        told += f"User: {question}\nAssistant: {answer}\n"


def _turns(conversation: object, where: str) -> list[tuple[str, str]]:
    """Pairs of what the human asked and what the model answered."""
    roles = ("human", "gpt")
    if not isinstance(conversation, list) or not conversation or len(conversation) % 2:
        raise DataError(f"{where}: field 'conversations': expected pairs of human and gpt turns")
    for number, turn in enumerate(conversation):
        expected = roles[number % 2]
        said = turn if isinstance(turn, dict) else {}
        if said.get("from") != expected or not str(said.get("value") or "").strip():
            raise DataError(
                f"{where}: field 'conversations', turn {number + 1}: expected a text from "
                f"'{expected}', got {turn!r:.80}"
            )
    texts = [turn["value"].strip() for turn in conversation]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _r1v(row: Row, where: str) -> Iterator[Entry]:
    """The answer is the content of the answer block of `solution`."""
    answer = answer_block(str(row["solution"]))
    if not answer:
        raise DataError(
            f"{where}: field 'solution': expected one <answer>..</answer>, "
            f"got {row['solution']!r:.80}"
        )
    yield _question(row, "problem", answer, where, used=("solution",))


def _easyr1(row: Row, where: str) -> Iterator[Entry]:
    yield _question(row, "problem", _answer(row, where), where, used=("answer",))


def _vqa(row: Row, where: str) -> Iterator[Entry]:
    yield _question(row, "question", _answer(row, where), where, used=("answer",))


def _trl(row: Row, where: str) -> Iterator[Entry]:
    """A chat or a text; the answer is that of a `solution`'s answer block, or all of it."""
    asked = row["prompt"]
    system, text = ("", asked) if isinstance(asked, str) else read_chat(asked, where)
    name = next((name for name in ("solution", "answer") if row.get(name) is not None), None)
    answer = None if name is None else _answer({"answer": row[name]}, where, name)
    if answer is not None:
        answer = answer_block(answer) or answer
    used = () if name is None else (name,)
    entry = _question({**row, "prompt": text}, "prompt", answer, where, used=used)
    yield replace(entry, text=f"{system}\n{entry.text}".strip())


def read_chat(chat: object, where: str) -> tuple[str, str]:
    """What the system says, and the question; turns before it stand in its text, by role.

    DataError unless it is a list of {role, content} that ends with the user's turn.
    """
    turns = chat if isinstance(chat, list) else []
    said = [(turn.get("role"), _content(turn)) for turn in turns if isinstance(turn, dict)]
    if not said or len(said) < len(turns) or said[-1][0] != "user":
        raise DataError(
            f"{where}: field 'prompt': expected a text, or a chat of {{role, content}} that ends "
            f"with the user's turn, got {chat!r:.80}"
        )
    system = "\n".join(text for role, text in said if role == "system")
    talk = [(str(role).capitalize(), text) for role, text in said if role != "system"]
    lines = [text for _, text in talk] if len(talk) == 1 else [f"{who}: {t}" for who, t in talk]
    return system, "\n".join(lines)


def _content(turn: Mapping[str, Any]) -> str:
    """A turn's text, with a mark where a picture stands in it."""
    content = turn.get("content")
    if not isinstance(content, list):
        return str(content or "").strip()
    parts = [part for part in content if isinstance(part, dict)]
    told = (MARK if part.get("type") == "image" else str(part.get("text") or "") for part in parts)
    return "".join(told).strip()


def _question(
    row: Row, name: str, answer: str | None, where: str, *, used: tuple[str, ...]
) -> Entry:
    """Options that stand in a column of their own go on a line below the question."""
    text, pictures = _text(row, name, where), _images(row)
    if text.count(MARK):
        _check_marks(text.count(MARK), pictures, where, name)
    options = row.get("options")
    if isinstance(options, list) and options and all(isinstance(o, str) for o in options):
        text, used = f"{text}\n{'; '.join(options)}", (*used, "options")
    metadata, left_out = _rest(row, used=(name, *used))
    return Entry(placed(text), pictures, answer, metadata, left_out)


def placed(text: str) -> str:
    """Without marks at the ends: pictures come first anyway. A mark inside becomes [image 2]."""
    parts = text.split(MARK)
    whole = parts[0]
    for number, part in enumerate(parts[1:], start=1):
        inside = whole.strip() and "".join(parts[number:]).strip()
        whole += f"[image {number}]{part}" if inside else part
    return whole.strip()


def _check_marks(marks: int, pictures: list[Any], where: str, name: str) -> None:
    if marks != len(pictures):
        raise DataError(
            f"{where}: field '{name}': {marks} {MARK} marks but {len(pictures)} pictures"
        )


def _text(row: Row, name: str, where: str) -> str:
    text = row[name]
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: field '{name}': expected a text, got {text!r:.80}")
    return text.strip()


def _answer(row: Row, where: str, name: str = "answer") -> str:
    answer = row["answer"]
    if not isinstance(answer, str | int | float) or not str(answer).strip():
        raise DataError(f"{where}: field '{name}': expected a text or number, got {answer!r:.80}")
    return str(answer).strip()


def _images(row: Row) -> list[Any]:
    name = next((name for name in PICTURES if row.get(name) is not None), None)
    if name is None:
        return []
    return list(row[name]) if isinstance(row[name], list) else [row[name]]


def _rest(row: Row, *, used: tuple[str, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The other columns as metadata, and the names of those that are no text or number."""
    others = {k: v for k, v in row.items() if k not in (*used, *PICTURES) and v is not None}
    flat = {k: v for k, v in others.items() if isinstance(v, str | int | float)}
    return flat, tuple(sorted(set(others) - set(flat)))


CONVERTERS: dict[Schema, Callable[[Row, str], Iterator[Entry]]] = {
    "mmrl": _mmrl,
    "llava": _llava,
    "r1v": _r1v,
    "easyr1": _easyr1,
    "vqa": _vqa,
    "trl": _trl,
}
