"""Any question to any judge: the probability of yes, or a grade."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from mmrl.config import ConfigError
from mmrl.data.judge_scores import (
    Reading,
    pooled_log_prob,
    read_answer_score,
    read_final_score,
    read_score_tag,
    yes_probability,
)
from mmrl.judge.base import Question, Reply, fill, score_of
from mmrl.judge.pictures import pictures_of
from mmrl.judge.section import JudgedReward
from mmrl.reward import rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import Sample, TextSample, VideoSample

TOP = 5
FIVE_POINTS = ("final_score", "score_tag")


@rewards.register("vlm_judge")
class VlmJudge(JudgedReward):
    """A judge's answer to `question` about a sample, in [0, 1]; NaN where it gives none.

    `yes_probability`: p(yes) / (p(yes) + p(no)) over the spellings among the 20 likeliest first
    tokens, NaN where neither is there. `answer`: a number in [0, 1]. `final_score`, `score_tag`: a
    grade from 1 to 5 after "Final Score:" or inside <Score> tags, over 5.
    """

    reads_spread_frames: ClassVar[bool] = True
    question: str
    """What the judge reads: {prompt} is the prompt's text, {response} a written answer."""
    read: Literal["yes_probability", "answer", "final_score", "score_tag"] = "yes_probability"
    num_frames: int = Field(default=8, ge=1)
    """Frames of a video that are shown."""

    @field_validator("question")
    @classmethod
    def _asks_about_the_sample(cls, value: str) -> str:
        if "{prompt}" not in value and "{response}" not in value:
            raise ConfigError(f"has neither {{prompt}} nor {{response}}: {value!r}")
        return value

    @judges_videos
    async def __call__(self, samples: Sample | Sequence[Sample]) -> list[float]:
        given = [samples] if isinstance(samples, TextSample | VideoSample) else samples
        replies = await self.memory.ask(self.judge, [self._ask_about(one) for one in given])
        top = TOP if self.read in FIVE_POINTS else 1
        return [score_of(READERS[self.read](reply), name="vlm_judge") / top for reply in replies]

    def _ask_about(self, sample: Sample) -> Question:
        response = sample.text if isinstance(sample, TextSample) else ""
        text = fill(self.question, prompt=sample.prompt.text, response=response)
        pictures = pictures_of(sample, num_frames=self.num_frames)
        return Question(text, pictures, first_token=self.read == "yes_probability")


def read_yes(reply: Reply) -> Reading:
    """The probability of yes against no in the first token."""
    words = (pooled_log_prob(reply.first_token, word) for word in ("yes", "no"))
    score = yes_probability(*words)
    return Reading(score, reply.text, "no score" if math.isnan(score) else "")


READERS = {
    "yes_probability": read_yes,
    "answer": lambda reply: read_answer_score(reply.text),
    "final_score": lambda reply: read_final_score(reply.text),
    "score_tag": lambda reply: read_score_tag(reply.text),
}
