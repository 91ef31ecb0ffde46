"""The model and prompt that benchmarks of VLM steps share, and TRL's trainer on them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from transformers import PreTrainedModel

from mmrl.models.vlm import VlmModel
from mmrl.models.vlm_loader import adapt
from mmrl.types import Prompt, TextSample
from pipelines.tiny.qwen2_5_vl import build_processor
from pipelines.tiny.qwen_models import SPECIAL, Size, build_model

QUESTION = "Describe the picture, then say which of the four options is right and why. " * 2
SIZE, VOCABULARY = Size(width=512, layers=6, vision=4), 16_384
clock = time.perf_counter if torch.cuda.is_available() else time.process_time


def build(folder: Path, side: int) -> tuple[VlmModel, Prompt]:
    """A Qwen2-VL of random weights, which hardly ever draws its end token, and a noise picture.

    37 M parameters; (side / 28)^2 image tokens.
    """
    torch.manual_seed(0)
    processor = build_processor([QUESTION])
    processor.image_processor.size = {"shortest_edge": side**2, "longest_edge": side**2}
    tokenizer = processor.tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    module = build_model("qwen2_vl", ids, VOCABULARY, SIZE).eval()
    assert isinstance(module, PreTrainedModel)
    model = adapt(module, processor)
    path = folder / "noise.png"
    Image.effect_noise((side, side), 80).convert("RGB").save(path)
    return model, Prompt(QUESTION, (path,))


def varied(sample: TextSample) -> float:
    """A reward that differs from answer to answer."""
    return sum(sample.text.encode()) % 97 / 97


def trl_seconds(
    model: VlmModel,
    prompt: Prompt,
    group: int,
    new_tokens: int,
    steps: int,
    folder: Path,
    *,
    peft_config: object = None,
    settings: Mapping[str, object] | None = None,
) -> list[float]:
    """Seconds of every step of TRL's GRPOTrainer, one prompt a step, after one to warm up.

    A step is counted from one call of the reward to the next. `settings` change GRPOConfig.
    ImportError without TRL.
    """
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

    times: list[float] = []

    def reward(completions, **_) -> list[float]:
        times.append(clock())
        return [float(index) for index in range(len(completions))]

    usual = {
        "output_dir": str(folder),
        "per_device_train_batch_size": group,
        "num_generations": group,
        "max_completion_length": new_tokens,
        "generation_kwargs": {"min_new_tokens": new_tokens},
        "max_steps": steps + 2,
        "beta": 0.0,
        "learning_rate": 1e-6,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    trainer = GRPOTrainer(
        model=model.module,
        processing_class=model.processor,
        reward_funcs=reward,
        train_dataset=trl_rows(prompt, 8),
        args=GRPOConfig(**{**usual, **(settings or {})}),
        peft_config=peft_config,
    )
    trainer.train()
    return [after - before for before, after in pairwise(times[1:])]


def trl_rows(prompt: Prompt, count: int):
    """The prompt `count` times; its own fingerprint spares datasets from pickling the table."""
    from datasets import Dataset, DatasetInfo, Features, Value  # pyright: ignore
    from datasets import Image as ImageFeature  # pyright: ignore
    from datasets.table import InMemoryTable  # pyright: ignore

    message = {"role": "user", "content": prompt.text}
    picture = {"bytes": prompt.images[0].read_bytes(), "path": None}
    columns = {"prompt": [[message]] * count, "image": [picture] * count}
    text = [{"role": Value("string"), "content": Value("string")}]
    features = Features({"prompt": text, "image": ImageFeature()})
    table = InMemoryTable.from_pydict(columns).cast(features.arrow_schema)
    return Dataset(table, info=DatasetInfo(features=features), fingerprint="vlm_peer")
