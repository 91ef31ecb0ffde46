"""How a judge is asked about reasoning, in training that judge and in using it."""

from __future__ import annotations

from mmrl.judge.base import Question, fill
from mmrl.types import TextSample

INSTRUCTION = """\
Grade the reasoning in the response below, not its final answer. A right answer reached by bad \
reasoning deserves a low grade, careful reasoning with a slip at the end may deserve a high one.
Check five things:
1. Does each step follow from the ones before it and from the picture?
2. Are the methods, facts and rules it uses correct and fitting?
3. Is it free of contradictions, fallacies and claims nothing supports?
4. Does it keep to one language throughout?
5. Is every part needed, without repetition and filler?
Be strict. Write one number from 0.0 (worthless) to 1.0 (flawless), in steps of 0.1, inside \
<answer> </answer> tags, and nothing else.

Question:
{question}

Response:
{response}"""


def thinking_question(sample: TextSample, instruction: str = INSTRUCTION) -> Question:
    """The whole response and all pictures of its prompt, under the five criteria of SophiaVL-R1.

    arXiv:2505.17018; the wording is this project's. Control tokens in question and response are
    left out, so a response cannot speak in the judge's place.
    """
    text = fill(instruction, question=sample.prompt.text, response=sample.text)
    return Question(text, sample.prompt.images)
