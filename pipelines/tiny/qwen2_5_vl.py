"""Train assets/tiny-qwen2_5_vl on chest X-rays: `python -m pipelines.tiny.qwen2_5_vl`.

A Qwen2.5-VL of 1.3 M parameters with its own byte-level tokenizer, taught by a short supervised
start to think in a few words and then answer. It stops early: the rest is left to reinforcement
learning. Needs `mmrl data fetch chest_xray`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

import mmrl.torchvision_fix  # noqa: F401
from mmrl.data.prompts import load_prompts
from mmrl.models.qwen_vl import QwenVlModel
from mmrl.policies.vlm import VlmPolicy
from mmrl.train.sft import Example, SftConfig, sft
from mmrl.types import Prompt
from pipelines.vision_language.med_r1 import TEMPLATES

FOLDER = Path("assets/tiny-qwen2_5_vl")
SFT = SftConfig(steps=60, batch=32, lr=2e-3, seed=0)
MAX_NEW_TOKENS = 24
SIDE = 112
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
FINDINGS = {
    "normal": (
        "the lungs are clear",
        "no opacity is seen",
        "both lung fields look clean",
        "the chest looks healthy",
    ),
    "pneumonia": (
        "there is an opacity",
        "a consolidation is seen",
        "the lung looks hazy",
        "an infiltrate is visible",
    ),
}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main() -> None:
    """Build, train, measure on the held-out side, save."""
    torch.manual_seed(0)
    prompts = load_prompts("cache:chest_xray/train.jsonl")
    examples = written_answers(prompts, random.Random(0))
    processor = build_processor([*{prompt.text for prompt in prompts}, *TEMPLATES.values()])
    model = QwenVlModel(build_model(processor.tokenizer).eval(), processor)
    policy = VlmPolicy(
        model, max_new_tokens=MAX_NEW_TOKENS, rows=64, prompt_template=TEMPLATES["think"]
    )
    losses = sft(policy, examples, SFT)
    policy.save_pretrained(FOLDER)
    held_out = load_prompts("cache:chest_xray/test.jsonl")
    print(json.dumps({"loss": losses[-1], **measure(policy, held_out)}, indent=1))


def written_answers(prompts: Sequence[Prompt], chooser: random.Random) -> list[Example]:
    """One of four findings that fit the label, then the letter."""
    return [
        Example(
            prompt,
            f"<think>{chooser.choice(FINDINGS[str(prompt.metadata['label'])])}</think>"
            f"<answer>{prompt.answer}</answer>",
        )
        for prompt in prompts
    ]


def build_processor(texts: Sequence[str]):
    """Qwen2.5-VL's own processor around a byte-level BPE of 512 tokens."""
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLProcessor, Qwen2VLImageProcessor
    from transformers import Qwen2VLVideoProcessor

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    findings = [phrase for phrases in FINDINGS.values() for phrase in phrases]
    corpus = [*texts, *findings, "system\nuser\nassistant\n"] * 8
    trainer = trainers.BpeTrainer(
        vocab_size=512 - len(TAGS),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(corpus, trainer)
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL[3:]),
        model_max_length=512,
    )
    tokenizer.image_token, tokenizer.video_token = "<|image_pad|>", "<|video_pad|>"
    size = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer):
    """Three text and three vision layers, width 128; 112x112 pictures make 16 image tokens."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": ids["<|im_start|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 3,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "out_hidden_size": 128,
            "fullatt_block_indexes": [2],
            "window_size": 56,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def measure(policy: VlmPolicy, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Greedy accuracy and share of well-formed answers."""
    from mmrl.reward import load_reward

    samples = policy.sample(prompts, [0] * len(prompts))
    return {
        name: load_reward(name)(samples).mean().item() for name in ("accuracy", "answer_format")
    }


if __name__ == "__main__":
    main()
