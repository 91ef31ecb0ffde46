"""Tokenizers and text encoders of tiny pipelines, made in memory."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ("<pad>", "</s>", "<unk>", "a", "red", "blue", "three", "moving", "left", "up")


def tokenizer(chat_template: str | None = None, *, template: str = "", tokens: int = 0):
    """One token a word, </s> at the end, <pad> after it.

    Text in front of the prompt that matches `template` becomes that many `tokens`.
    """
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    if template:
        words.normalizer = normalizers.Replace(Regex(template), "a " * tokens)
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=chat_template,
    )


def t5_encoder(vocabulary: int = len(WORDS)):
    """A one-layer T5 encoder 8 wide."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=vocabulary,
        d_model=8,
        d_kv=4,
        d_ff=8,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config)


def encoder_calls(pipeline) -> list[str]:
    """The names of the text encoders that ran since, one a forward pass."""
    calls: list[str] = []
    for name, part in pipeline.components.items():
        if name.startswith("text_encoder") and part is not None:
            part.register_forward_hook(lambda *_, name=name: calls.append(name))
    return calls
