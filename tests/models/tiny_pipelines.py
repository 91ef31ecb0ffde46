"""Video pipelines of every family, small and with random weights, and how each is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import diffusers
import torch
from diffusers import ClassifierFreeGuidance, DiffusionPipeline
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from mmrl.policies.video_model import VideoSize

STEPS = 4
"""Divides 1000, or CogVideoX's own scheduler steps to other levels than it goes on from."""
WORDS = ("<pad>", "</s>", "<unk>", "a", "red", "blue", "three", "moving", "left", "up")
FIRST_FRAME = "first_frame.png"
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
    image: bool = False
    """Whether videos start from an image."""
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


def wan_vae(*, residual: bool):
    """2.1's VAE, or the 5B model's residual one on patches of 2 x 2 pixels."""
    from diffusers import AutoencoderKLWan

    patches = {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.0, 0.5, 2.0, 1.5],
        scale_factor_temporal=2,
        scale_factor_spatial=4 if residual else 2,
        **(patches if residual else {}),
    )


def wan_transformer(in_channels: int = 4, image_dim: int | None = None):
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=in_channels,
        out_channels=4,
        text_dim=8,
        freq_dim=8,
        ffn_dim=8,
        num_layers=1,
        image_dim=image_dim,
        added_kv_proj_dim=None if image_dim is None else 24,
        rope_max_seq_len=16,
    )


def wan_parts() -> dict[str, object]:
    from diffusers import FlowMatchEulerDiscreteScheduler
    from transformers import UMT5Config, UMT5EncoderModel

    text = UMT5Config(vocab_size=len(WORDS), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return {
        "tokenizer": tokenizer(),
        "text_encoder": UMT5EncoderModel(text),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=5.0),
    }


def wan22_5b(pipeline: str = "WanPipeline") -> DiffusionPipeline:
    return getattr(diffusers, pipeline)(
        **wan_parts(),
        vae=wan_vae(residual=True),
        transformer=wan_transformer(),
        expand_timesteps=True,
    )


def wan22_a14b(pipeline: str = "WanPipeline", in_channels: int = 4) -> DiffusionPipeline:
    """Both experts have steps of the grid of STEPS."""
    return getattr(diffusers, pipeline)(
        **wan_parts(),
        vae=wan_vae(residual=False),
        transformer=wan_transformer(in_channels),
        transformer_2=wan_transformer(in_channels),
        boundary_ratio=0.8,
    )


def wan21_i2v() -> DiffusionPipeline:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    clip = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=4,
        patch_size=2,
    )
    return diffusers.WanImageToVideoPipeline(
        **wan_parts(),
        vae=wan_vae(residual=False),
        transformer=wan_transformer(10, image_dim=8),
        image_encoder=CLIPVisionModel(clip),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 4}, crop_size=4),
    )


def guided_at_length(length: int) -> Callable[[DiffusionPipeline, float], Call]:
    """Guidance and the text's length as arguments of the call."""
    return lambda _, guidance: {"guidance_scale": guidance, "max_sequence_length": length}


def load_both_experts(pipeline: DiffusionPipeline, folder: Path) -> None:
    pipeline.load_lora_weights(folder)
    pipeline.load_lora_weights(folder / "transformer_2", load_into_transformer_2=True)


COGVIDEOX = Family(
    cogvideox,
    VideoSize(num_frames=9, height=32, width=16, max_sequence_length=8),
    ("to_q", "to_out.0"),
    guided_at_length(8),
    to_theirs=frames_first,
    to_ours=frames_first,
    flow=False,
)
WAN22_5B = Family(
    wan22_5b,
    VideoSize(num_frames=5, height=16, width=16, max_sequence_length=8),
    ("attn1.to_q", "attn2.to_out.0"),
    guided_at_length(8),
)
WAN22_A14B = replace(
    WAN22_5B,
    build=wan22_a14b,
    load_lora=load_both_experts,
)
I2V = "WanImageToVideoPipeline"
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


FAMILIES |= {
    "wan22_5b": WAN22_5B,
    "wan22_5b_i2v": replace(WAN22_5B, build=partial(wan22_5b, I2V), image=True),
    "wan22_a14b": WAN22_A14B,
    "wan22_a14b_i2v": replace(WAN22_A14B, build=partial(wan22_a14b, I2V, 10), image=True),
    "wan21_i2v": replace(
        WAN22_A14B,
        build=wan21_i2v,
        size=replace(WAN22_5B.size, max_sequence_length=512),
        prepare=guided_at_length(512),
        load_lora=WAN22_5B.load_lora,
        image=True,
    ),
}


def save(family: Family, folder: Path) -> Path:
    """The family's pipeline as a folder, the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = family.build()
    pipeline.save_pretrained(folder, safe_serialization=True)
    ramp = torch.arange(20 * 12 * 3, dtype=torch.uint8).view(12, 20, 3)
    Image.fromarray(ramp.numpy()).save(folder / FIRST_FRAME)
    return folder


def first_frame(folder: Path) -> Path:
    """A picture to start from, of another shape than the videos."""
    return folder / FIRST_FRAME


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
        **({"image": Image.open(first_frame(folder))} if family.image else {}),
    ).frames
    return family.to_ours(found) if output == "latent" else found[0]
