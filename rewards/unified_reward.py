"""UnifiedReward: a VLM that grades a generated picture or video from 1 to 5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from mmrl.data.judge_scores import read_final_score
from mmrl.judge.base import Question, fill, score_of
from mmrl.judge.pictures import pictures_of
from mmrl.judge.section import JudgedReward
from mmrl.reward import rewards
from mmrl.reward.screen import judges_videos_and_prompts
from mmrl.types import VideoSample

INSTRUCTION = """\
You are shown the result of a text-to-image or text-to-video model, a video as frames in order. \
Grade from 1 to 5 how well it follows the caption, how well it is drawn and, for a video, how \
naturally it moves. Explain briefly, then end with one line of the form "Final Score: X".

Caption: {caption}"""
TOP = 5


@rewards.register("unified_reward")
class UnifiedReward(JudgedReward):
    """The "Final Score" of a judge over 5, in [0.2, 1] (UnifiedReward, arXiv:2503.05236).

    Written for UnifiedReward-7b-v1.5 behind an endpoint; any judge that ends on such a line will
    do. A reply without exactly one score in 1 .. 5 is NaN; ports of the model score it 0.
    """

    reads_spread_frames: ClassVar[bool] = True
    instruction: str = INSTRUCTION
    """What the judge reads: {caption} is the prompt's text."""
    num_frames: int = Field(default=8, ge=1)
    side: int = Field(default=512, ge=28)
    """Frames are resized to this square, as the released service does."""
    last: bool = False
    """Take the last of several different scores instead of abstaining."""

    @judges_videos_and_prompts
    async def __call__(self, samples: VideoSample | Sequence[VideoSample]) -> list[float]:
        given = [samples] if isinstance(samples, VideoSample) else samples
        questions = [self._ask_about(sample) for sample in given]
        return [
            score_of(read_final_score(reply.text, last=self.last), name="unified_reward") / TOP
            for reply in await self.memory.ask(self.judge, questions)
        ]

    def _ask_about(self, sample: VideoSample) -> Question:
        text = fill(self.instruction, caption=sample.prompt.text)
        return Question(text, pictures_of(sample, num_frames=self.num_frames, side=self.side))
