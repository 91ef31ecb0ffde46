"""The three tokens of a span of latents in a tokenizer, and adding them to a model."""

# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from tokenizers import AddedToken

from mmrl.config import ConfigError
from mmrl.data.prompts import DataError
from mmrl.models.vlm import VlmModel
from mmrl.ops.latent_steps import NAMES, SpanTokens


def span_tokens(model: VlmModel) -> SpanTokens:
    """Ids of the three tokens; ConfigError where the tokenizer lacks one."""
    known = model.tokenizer.get_vocab()
    missing = [name for name in NAMES if name not in known]
    if missing:
        raise ConfigError(
            f"its tokenizer has no {missing[0]}: this model knows no latent spans; "
            "give it a latent cold start first (docs/methods/hylar.md)",
            key="model",
        )
    return SpanTokens(*(known[name] for name in NAMES))


def add_span_tokens(model: VlmModel) -> SpanTokens:
    """The three tokens as ordinary words; the embedding grows only where it is too short."""
    words = [AddedToken(name, special=False, normalized=False) for name in NAMES]
    model.tokenizer.add_tokens(words)
    rows = model.module.get_input_embeddings().weight.shape[0]  # pyright: ignore
    if len(model.tokenizer) > rows:
        model.module.resize_token_embeddings(len(model.tokenizer))  # pyright: ignore
    return span_tokens(model)


def check_plain(text: str, where: str) -> None:
    """DataError where a text writes one of the tokens itself: latents would be missing there."""
    for name in NAMES:
        if name in text:
            raise DataError(
                f"{where}: the text {text[:60]!r} holds {name}, a token of latent spans"
            )
