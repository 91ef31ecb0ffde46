"""Sentence embeddings: all-MiniLM-L6-v2 (Reimers & Gurevych, arXiv:1908.10084)."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from mmrl.models.place import CPU, Place, to_host
from mmrl.models.weights import MINILM

TOKENS = 256
"""Longest text the model was tuned on; the rest of a text is not read."""
KEPT_TEXTS = 16_384
SentenceModel = Callable[[str], Float[Tensor, " D"]]


def embed_texts(texts: Sequence[str], place: Place = CPU) -> Float[Tensor, "N D"]:
    """Unit embeddings, (N, 384); a text met before is not read again."""
    return torch.stack([_embedding(text, place) for text in texts])


@lru_cache(maxsize=KEPT_TEXTS)
def _embedding(text: str, place: Place) -> Float[Tensor, " D"]:
    return minilm(place)(text)


@cache
def minilm(place: Place = CPU) -> SentenceModel:
    """Mean of the last layer over tokens, at unit length; one model a process."""
    from transformers import AutoModel, AutoTokenizer

    folder = MINILM.path().parent
    model = place.holds(AutoModel.from_pretrained(folder, local_files_only=True))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def embed(text: str) -> Float[Tensor, " D"]:
        inputs = tokenizer(text, truncation=True, max_length=TOKENS, return_tensors="pt")
        found = model(**{name: place.whole(value) for name, value in inputs.items()})
        return normalize(to_host(found.last_hidden_state[0]).mean(0), dim=-1)

    return embed
