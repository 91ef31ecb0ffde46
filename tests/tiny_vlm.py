"""Real vision-language models of tiny size with random weights, and pictures of noise for them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mmrl.models.vlm import VlmModel
from mmrl.models.vlm_loader import adapt
from mmrl.policies.vlm import VlmPolicy
from mmrl.types import Prompt
from pipelines.tiny.qwen2_5_vl import SIDE, SPECIAL, build_processor
from pipelines.tiny.qwen_models import Size, build_model

Family = Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "idefics3", "internvl"]
FAMILIES: tuple[Family, ...] = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "smolvlm",
    "idefics3",
    "internvl",
)
QUESTIONS = ("what is it?", "what is it?", "is the picture bright or is it dark, would you say?")
WIDTH = 64
TILE = 56
"""Side of a tile of SmolVLM and InternVL: 4 x 4 patches of 14, 2 x 2 tokens."""
TILE_TOKENS = 4
IDEFICS_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
    "<video>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)
INTERN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<video>",
)
CHAT = (
    "{{% for message in messages %}}<|im_start|>{{{{ message['role'] }}}}\n"
    "{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}{image}"
    "{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}{end}\n{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
)


def random_model(family: Family, *, std: float = 0.08) -> VlmModel:
    """Weights far from 0, so that no answer is likely by default and errors show."""
    torch.manual_seed(0)
    processor, module = _parts(family)
    for weights in module.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=std)
    return adapt(module.eval(), processor)


def random_policy(family: Family) -> VlmPolicy:
    """Six tokens an answer, two groups of three a pass."""
    return VlmPolicy(random_model(family), max_new_tokens=6, rows=6, temperature=0.7)


def noise_prompts(folder: Path) -> list[Prompt]:
    """Three pictures; the last question is longer than the others."""
    generator = torch.Generator().manual_seed(0)
    pictures = [noise(folder / f"{index}.png", 112, 112, generator) for index in range(3)]
    return [Prompt(q, (p,), answer="A") for q, p in zip(QUESTIONS, pictures, strict=True)]


def mixed_prompts(folder: Path) -> list[Prompt]:
    """One picture, none, two of other sizes, and a long question."""
    generator = torch.Generator().manual_seed(1)
    one, wide, small = (
        noise(folder / f"mixed_{index}.png", *size, generator)
        for index, size in enumerate(((112, 112), (56, 168), (84, 56)))
    )
    short, _, long = QUESTIONS
    return [
        Prompt(short, (one,)),
        Prompt(short),
        Prompt(short, (wide, small)),
        Prompt(long, (one,)),
    ]


def noise(path: Path, height: int, width: int, generator: torch.Generator) -> Path:
    """A picture in which every pixel is drawn by itself."""
    pixels = torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)
    return path


def _parts(family: Family) -> tuple[object, transformers.PreTrainedModel]:
    if family in ("smolvlm", "idefics3"):
        return _idefics(family)
    if family == "internvl":
        return _internvl()
    processor = build_processor(QUESTIONS)
    tokenizer = processor.tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    if family != "qwen3_vl":
        return processor, build_model(
            family, ids, len(tokenizer), Size(width=WIDTH, layers=2, vision=2)
        )
    return _qwen3_vl(processor, ids)


def _qwen3_vl(processor, ids: dict[str, int]):
    """Image features go into the first two text layers as well."""
    vision = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": WIDTH, "depth": 3}
    vision |= {"num_heads": 2, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    config = transformers.Qwen3VLConfig(
        text_config={
            **_text(len(processor.tokenizer), ids["<|endoftext|>"]),
            "num_hidden_layers": 3,
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
        },
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    size = {"shortest_edge": 32**2, "longest_edge": SIDE**2}
    processor = transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=16, size=size),
        tokenizer=processor.tokenizer,
        video_processor=transformers.Qwen3VLVideoProcessor(),
        chat_template=processor.chat_template,
    )
    return processor, transformers.Qwen3VLForConditionalGeneration(config)


def _idefics(family: Family):
    """SmolVLM or Idefics3: tiles of the picture and a small whole."""
    tokenizer = _tokenizer(IDEFICS_SPECIAL, end="<end_of_utterance>")
    tiles = {"max_image_size": {"longest_edge": TILE}, "size": {"longest_edge": 2 * TILE}}
    chat = CHAT.format(image="<image>", end="<end_of_utterance>")
    config = {
        "text_config": {"model_type": "llama", **_text(len(tokenizer), tokenizer.pad_token_id)},
        "vision_config": {**_siglip(), "image_size": TILE, "patch_size": 14},
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "scale_factor": 2,
    }
    more = {"tokenizer": tokenizer, "image_seq_len": TILE_TOKENS, "chat_template": chat}
    if family == "idefics3":
        processor = transformers.Idefics3Processor(
            transformers.Idefics3ImageProcessor(**tiles), **more
        )
        config = transformers.Idefics3Config(**config)
        return processor, transformers.Idefics3ForConditionalGeneration(config)
    processor = transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(**tiles),
        video_processor=transformers.SmolVLMVideoProcessor(),
        **more,
    )
    return processor, transformers.SmolVLMForConditionalGeneration(
        transformers.SmolVLMConfig(**config)
    )


def _internvl():
    """A Qwen2 behind InternViT; a picture wider than high has tiles and a small whole."""
    names = {"start_image_token": "<img>", "end_image_token": "</img>"}
    names |= {"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    tokenizer = _tokenizer(INTERN_SPECIAL, end="<|im_end|>", names=names)
    processor = transformers.InternVLProcessor(
        image_processor=transformers.GotOcr2ImageProcessor(
            size={"height": TILE, "width": TILE}, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tokenizer,
        video_processor=transformers.InternVLVideoProcessor(),
        image_seq_length=TILE_TOKENS,
        chat_template=CHAT.format(image="<IMG_CONTEXT>", end="<|im_end|>"),
    )
    config = transformers.InternVLConfig(
        text_config={"model_type": "qwen2", **_text(len(tokenizer), tokenizer.pad_token_id)},
        vision_config={**_siglip(), "image_size": [TILE, TILE], "patch_size": [14, 14]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=TILE_TOKENS,
    )
    return processor, transformers.InternVLForConditionalGeneration(config)


def _text(vocabulary: int, pad: int) -> dict:
    return {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "pad_token_id": pad,
    }


def _siglip() -> dict:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }


def _tokenizer(special: tuple[str, ...], *, end: str, names: dict[str, str] | None = None):
    """A byte-level BPE whose special tokens come first."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*QUESTIONS, "user\nassistant\n"] * 4, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=end,
        pad_token="<|endoftext|>",
        extra_special_tokens=names or {},
    )
