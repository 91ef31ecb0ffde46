"""Video pipelines of every family, small and with random weights, and how each is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from diffusers import ClassifierFreeGuidance, DiffusionPipeline
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from mmrl.policies.video_model import VideoSize

STEPS = 4
"""Divides 1000, or CogVideoX's own scheduler steps to other levels than it goes on from."""
WORDS = ("<pad>", "</s>", "<unk>", "a", "red", "blue", "three", "moving", "left", "up")
Call = dict[str, object]


@dataclass(frozen=True)
class Family:
    """One adapter's tiny pipeline."""

    build: Callable[[], DiffusionPipeline]
    size: VideoSize
    lora: tuple[str, ...]
    prepare: Callable[[DiffusionPipeline, float], Call]
    """Arguments of the pipeline's own call for a guidance, and what must be set on it before."""
    to_theirs: Callable[[Tensor], Tensor] = lambda latents: latents
    to_ours: Callable[[Tensor], Tensor] = lambda latents: latents
    guidances: tuple[float, ...] = (1.0, 3.0)
    flow: bool = True
    load_lora: Callable[[DiffusionPipeline, Path], None] = lambda pipeline, folder: (
        pipeline.load_lora_weights(folder)
    )


def tokenizer(chat_template: str | None = None):
    """One token a word, </s> at the end, <pad> after it."""
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
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


def hunyuan_video15() -> DiffusionPipeline:
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideo15Pipeline,
        HunyuanVideo15Transformer3DModel,
    )
    from transformers import ByT5Tokenizer, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

    text = Qwen2_5_VLTextConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        rope_parameters={"rope_type": "default", "mrope_section": [1, 1], "rope_theta": 1e4},
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
    )
    byt5 = ByT5Tokenizer()
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=8,
        text_embed_2_dim=8,
        image_embed_dim=4,
        rope_axes_dim=(2, 2, 4),
        target_size=16,
        task_type="t2v",
    )
    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
        downsample_match_channel=False,
        upsample_match_channel=False,
        scaling_factor=0.5,
    )
    return HunyuanVideo15Pipeline(
        text_encoder=Qwen2_5_VLTextModel(text),
        tokenizer=tokenizer("{{ 'a ' * 108 }}{{ messages[1]['content'] }}"),
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        text_encoder_2=t5_encoder(len(byt5)),
        tokenizer_2=byt5,
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
    )


def guided_by_guider(pipeline: DiffusionPipeline, guidance: float) -> Call:
    pipeline.guider = ClassifierFreeGuidance(guidance_scale=guidance)
    pipeline.tokenizer_max_length = 8
    return {}


def cogvideox(patch_size_t: int | None = None) -> DiffusionPipeline:
    """The 2B model's kind; with temporal patches and rotary positions, 1.5's."""
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )

    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=4,
        text_embed_dim=8,
        num_layers=1,
        sample_width=2,
        sample_height=4,
        sample_frames=9,
        patch_size=2,
        patch_size_t=patch_size_t,
        max_text_seq_length=8,
        use_rotary_positional_embeddings=patch_size_t is not None,
        patch_bias=patch_size_t is None,
    )
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
    )
    return CogVideoXPipeline(tokenizer(), t5_encoder(), vae, transformer, scheduler)


def frames_first(latents: Tensor) -> Tensor:
    """Its own inverse."""
    return latents.transpose(1, 2)


def guided(pipeline: DiffusionPipeline, guidance: float) -> Call:
    return {"guidance_scale": guidance, "max_sequence_length": 8}


COGVIDEOX = Family(
    cogvideox,
    VideoSize(num_frames=9, height=32, width=16, max_sequence_length=8),
    ("to_q", "to_out.0"),
    guided,
    to_theirs=frames_first,
    to_ours=frames_first,
    flow=False,
)
FAMILIES = {
    "cogvideox": COGVIDEOX,
    "cogvideox15": replace(COGVIDEOX, build=partial(cogvideox, patch_size_t=2)),
    "hunyuan_video15": Family(
        hunyuan_video15,
        VideoSize(num_frames=5, height=16, width=16, max_sequence_length=8),
        ("to_q", "add_q_proj", "to_out.0"),
        guided_by_guider,
        load_lora=lambda pipeline, folder: pipeline.transformer.load_lora_adapter(
            folder, prefix=None, use_safetensors=True
        ),
    ),
}


def save(family: Family, folder: Path) -> Path:
    """The family's pipeline as a folder, the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = family.build()
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@cache
@torch.no_grad()
def own_call(
    family: Family, folder: Path, prompt: str, noise: Tensor, *, guidance: float, output: str
) -> Tensor:
    """Latents in our layout (`latent`), or a video `F 3 H W` (`pt`), of the pipeline's own loop."""
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    size = family.size
    found = pipeline(
        prompt=prompt,
        negative_prompt="",
        num_frames=size.num_frames,
        height=size.height,
        width=size.width,
        num_inference_steps=STEPS,
        latents=family.to_theirs(noise),
        output_type=output,
        **family.prepare(pipeline, guidance),
    ).frames
    return family.to_ours(found) if output == "latent" else found[0]
