"""vLLM as the sampler of a policy, on the same GPU as the trainer; optional, `mmrl[vllm]`."""

# pyright: reportMissingImports=false

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from mmrl.config import ConfigError
from mmrl.data.images import load_image
from mmrl.models.vlm import VlmModel
from mmrl.policies.answers import Answers
from mmrl.policies.engine_config import VllmConfig
from mmrl.policies.lora import has_lora
from mmrl.types import Prompt

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks that vLLM lets one reserve."""


@dataclass
class VllmEngine:
    """One `vllm.LLM` in this process. Log-probs are those at the sampling temperature."""

    llm: Any
    sampling: dict[str, Any]
    pad: int
    version: int = 0
    adapter: Any = None
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="mmrl-vllm-")))
    """Where adapters pass; it goes with the engine."""

    def __post_init__(self) -> None:
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    @classmethod
    def start(
        cls,
        path: str,
        model: VlmModel,
        config: VllmConfig,
        *,
        max_new_tokens: int,
        temperature: float,
        lora_rank: int | None,
    ) -> VllmEngine:
        """Load `path` a second time, in vLLM; ConfigError where vLLM is not installed.

        The engine runs inside this process, so that weights pass without a copy in between.
        """
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        try:
            from vllm import LLM
        except ImportError as error:
            raise ConfigError(
                f"'vllm' needs vLLM, which is not here ({error}): pip install 'mmrl[vllm]', "
                "or rollout_engine: transformers",
                key="rollout_engine",
            ) from error
        adapters = (
            {"enable_lora": True, "max_lora_rank": engine_rank(lora_rank)} if lora_rank else {}
        )
        llm = LLM(
            model=path,
            dtype=str(next(model.module.parameters()).dtype).removeprefix("torch."),
            gpu_memory_utilization=config.gpu_memory,
            max_model_len=config.max_length,
            generation_config="vllm",
            logprobs_mode="processed_logprobs",
            **adapters,
        )
        end = model.tokenizer.eos_token_id
        sampling = {
            "temperature": temperature,
            "max_tokens": max_new_tokens,
            "logprobs": 1,
            "ignore_eos": True,
            "stop_token_ids": [end],
            "detokenize": False,
        }
        return cls(llm, sampling, model.tokenizer.pad_token_id)

    def push(self, model: VlmModel) -> None:
        """Hand over the adapter, or all weights where there is none; forget cached prefixes."""
        self.version += 1
        if has_lora(model.module):
            self._push_adapter(model)
        else:
            weights = [(name, weight.detach()) for name, weight in model.module.named_parameters()]
            self.llm.apply_model(lambda network: bool(network.load_weights(weights)))
        self.llm.reset_prefix_cache()

    def answer(
        self,
        prompts: Sequence[Prompt],
        chats: Sequence[str],
        group_size: int,
        seeds: Sequence[int],
    ) -> Answers:
        """`llm.generate` with n = G and a seed a prompt."""
        from vllm import SamplingParams

        asked = [question(prompt, chat) for prompt, chat in zip(prompts, chats, strict=True)]
        how = [SamplingParams(n=group_size, seed=seed, **self.sampling) for seed in seeds]
        found = self.llm.generate(asked, how, use_tqdm=False, lora_request=self.adapter)
        return read_answers(found, pad=self.pad)

    def _push_adapter(self, model: VlmModel) -> None:
        if model.vision_learns:
            raise ConfigError(
                "vLLM runs adapters of the text model only; set freeze_vision: true",
                key="rollout_engine",
            )
        from vllm.lora.request import LoRARequest

        place = self.folder / str(self.version)
        model.module.save_pretrained(place)
        self.adapter = LoRARequest(f"policy-{self.version}", self.version, str(place))
        shutil.rmtree(self.folder / str(self.version - 1), ignore_errors=True)


def engine_rank(rank: int) -> int:
    """The smallest rank to reserve that holds adapters of `rank`."""
    fitting = [each for each in RANKS if each >= rank]
    if not fitting:
        raise ConfigError(f"vLLM takes ranks up to {RANKS[-1]}, got {rank}", key="lora.rank")
    return fitting[0]


def question(prompt: Prompt, chat: str) -> dict[str, Any]:
    """A prompt as `llm.generate` takes it."""
    if not prompt.images:
        return {"prompt": chat}
    pictures = [load_image(path) for path in prompt.images]
    return {"prompt": chat, "multi_modal_data": {"image": pictures}}


def read_answers(requests: Sequence[Any], *, pad: int) -> Answers:
    """Tokens and log-probs of vLLM's `RequestOutput`s, group-major."""
    rows = [
        completion
        for request in requests
        for completion in sorted(request.outputs, key=lambda each: each.index)
    ]
    ids = [torch.tensor(list(row.token_ids), dtype=torch.long) for row in rows]
    log_probs = [torch.tensor(_sampled(row), dtype=torch.float32) for row in rows]
    mask = [torch.ones(len(each)) for each in ids]
    return Answers(
        pad_sequence(ids, batch_first=True, padding_value=pad),
        pad_sequence(log_probs, batch_first=True),
        pad_sequence(mask, batch_first=True),
    )


def _sampled(completion: Any) -> list[float]:
    pairs = zip(completion.token_ids, completion.logprobs, strict=True)
    return [found[token].logprob for token, found in pairs]
