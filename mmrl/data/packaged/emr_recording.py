"""Recorded sessions in two medical-records applications, in the package openadapt-flow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmrl.data.packaged.dataset import Dataset, write_jsonl


class Session(NamedTuple):
    """A recording: its folder, and in our words the task and what each action does."""

    folder: str
    task: str
    actions: tuple[str, ...]


SESSIONS = {
    "train": Session(
        folder="showcase/recording",
        task=(
            "Sign in to MockMed as 'nurse.demo' with the password 'mockmed-demo-pass', open the "
            "referral task of Jane Sample, and save a new triage encounter with the note '{note}'."
        ),
        actions=(
            "Click the Username field",
            "Type 'nurse.demo'",
            "Click the Password field",
            "Type 'mockmed-demo-pass'",
            "Click the Sign In button",
            "Click the Open button in the row of Jane Sample",
            "Click the New Encounter button",
            "Click the encounter type Triage",
            "Click the Note field",
            "Type '{note}'",
            "Click the Save Encounter button",
        ),
    ),
    "test": Session(
        folder="showcase-openemr/recording",
        task=(
            "Sign in to OpenEMR as 'admin' with the password 'pass', search for the patient "
            "'Phil', open the chart of Phil Belford, and save a new patient message with the "
            "text '{note}'."
        ),
        actions=(
            "Click the Username field",
            "Type 'admin'",
            "Click the Password field",
            "Type 'pass'",
            "Click the Login button",
            "Click the patient search field at the top",
            "Type 'Phil'",
            "Press Enter",
            "Click the patient Phil Belford in the list",
            "Scroll down",
            "Scroll down",
            "Scroll down",
            "Scroll down",
            "Click the pencil icon of the Messages card",
            "Click the Add button",
            "Click the message text field",
            "Type '{note}'",
            "Click the Save as new message button",
        ),
    ),
}
"""One application a side: frames of one session show the same screens again and again."""


def write_prompts(folder: Path) -> dict[str, int]:
    """train.jsonl of the mock application, test.jsonl of OpenEMR; a prompt is one next action."""
    return {
        side: write_jsonl(folder / f"{side}.jsonl", _entries(folder, session))
        for side, session in SESSIONS.items()
    }


def _entries(folder: Path, session: Session) -> Iterator[dict]:
    base = folder / session.folder
    meta = json.loads((base / "meta.json").read_text(encoding="utf-8"))
    lines = (base / "events.jsonl").read_text(encoding="utf-8").splitlines()
    width, height = meta["viewport"]
    note = meta["params"]["note"]
    actions = [action.replace("{note}", note) for action in session.actions]
    for event, action in zip(map(json.loads, lines), actions, strict=True):
        number = event["i"]
        yield {
            "text": _text(session.task.replace("{note}", note), actions[:number]),
            "images": [f"{session.folder}/frames/{number:04d}_before.png"],
            "metadata": {
                **_action(event),
                "action": action,
                "width": width,
                "height": height,
                "step": number,
                "session": session.folder,
                "question_type": "next action",
            },
        }


def _text(task: str, done: list[str]) -> str:
    steps = "".join(f"\n{number}. {action}" for number, action in enumerate(done, start=1))
    return f"Task: {task}\nActions so far:{steps or ' none'}\nWhat is the next action?"


def _action(event: dict[str, Any]) -> dict[str, str | int]:
    """The action in GUI-Libra's words. A click is a point in pixels; no recording has boxes."""
    match event["kind"]:
        case "click":
            return {"action_type": "Click", "point_x": event["x"], "point_y": event["y"]}
        case "type":
            return {"action_type": "Write", "value": event["text"]}
        case "key":
            return {"action_type": "KeyboardPress", "value": event["key"]}
        case "scroll":
            return {"action_type": "Scroll", "value": "down" if event["dy"] > 0 else "up"}
        case kind:
            raise ValueError(f"the pinned recording has no action of kind {kind!r}")


DATASET = Dataset(
    package="openadapt-flow",
    version="2.4.0",
    archive="openadapt_flow-2.4.0.tar.gz",
    sha256="53aa32f70606ac74906f9d51599c9ae5397889f4b325c0cdd63615db408e7e66",
    license="MIT",
    prefix="openadapt_flow-2.4.0/docs/",
    megabytes=28,
    summary="two recorded sessions in medical-records applications, one a side",
    write_prompts=write_prompts,
    only=("showcase/recording/", "showcase-openemr/recording/"),
)
