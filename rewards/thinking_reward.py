"""How sound is the reasoning? A judge reads the whole response."""

from __future__ import annotations

from collections.abc import Sequence

from mmrl.data.judge_scores import read_answer_score
from mmrl.judge.base import score_of
from mmrl.judge.section import JudgedReward
from mmrl.judge.thinking import INSTRUCTION, thinking_question
from mmrl.reward import rewards
from mmrl.types import TextSample


@rewards.register("thinking_reward")
class ThinkingReward(JudgedReward):
    """A judge's grade of the reasoning, in [0, 1] (SophiaVL-R1, arXiv:2505.17018).

    Question, pictures and whole response go to the judge; its reply must be one plain number, in an
    answer block or by itself. No number, several, or one out of range is NaN, as is no reply. The
    release turns these into 0 or, for some, into a wrong number.
    """

    instruction: str = INSTRUCTION
    """What the judge reads: {question} and {response} are put in."""
    grid: bool = False
    """Round to tenths."""

    async def __call__(self, samples: TextSample | Sequence[TextSample]) -> list[float]:
        given = [samples] if isinstance(samples, TextSample) else samples
        questions = [thinking_question(sample, self.instruction) for sample in given]
        return [
            score_of(read_answer_score(reply.text, grid=self.grid), name="thinking_reward")
            for reply in await self.memory.ask(self.judge, questions)
        ]
