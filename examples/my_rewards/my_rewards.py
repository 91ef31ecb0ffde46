"""Three rewards: a function of a sample, a class with a model, a group compared with itself."""

from __future__ import annotations

from functools import cached_property

from mmrl.reward import RewardConfig, rewards


@rewards.register("brief")
def brief(sample, *, words: int = 200) -> float:
    """1 up to `words` words, falling to 0 at twice that."""
    return min(1.0, max(0.0, 2 - len(sample.text.split()) / words))


@rewards.register("loudness")
class Loudness(RewardConfig):
    """Share of capital letters. A text without letters has none to share: NaN."""

    ignored: str = "AI"

    @cached_property
    def letters(self) -> set[str]:
        """Stands for a model: made on the first call, once."""
        return set("ABCDEFGHIJKLMNOPQRSTUVWXYZ") - set(self.ignored)

    def __call__(self, samples) -> list[float | None]:
        return [self.score(sample.text) for sample in samples]

    def score(self, text: str) -> float | None:
        """None is NaN: the sample leaves its group and is counted as abstained."""
        known = [letter for letter in text if letter.isalpha()]
        return sum(letter in self.letters for letter in known) / len(known) if known else None


@rewards.register("shortest_of_group")
async def shortest_of_group(group) -> list[float | None]:
    """1 for the shortest answer of a prompt, 0 for the longest; a lone answer scores NaN."""
    if len(group) < 2:
        return [None]
    lengths = sorted(len(sample.text) for sample in group)
    spread = max(lengths[-1] - lengths[0], 1)
    return [(lengths[-1] - len(sample.text)) / spread for sample in group]
