"""Random tiny image pipelines of every family, from config objects: offline, a second or less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from einops import rearrange
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)

from mmrl.models.flux import FluxModel
from mmrl.models.flux2 import Flux2Model
from mmrl.models.image import pack, unpack
from mmrl.models.qwen_image import QwenImageModel
from mmrl.models.sd3 import Sd3Model
from mmrl.policies.video_model import VideoModel, VideoSize

HEIGHT, WIDTH, LENGTH = 16, 24, 48
SIZE = VideoSize(num_frames=1, height=HEIGHT, width=WIDTH, max_sequence_length=LENGTH)
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
WORDS = ["a", "red", "blue", "three", "nine", "moving", "left", "right", "cat"]
VOCABULARY = {word: i for i, word in enumerate(SPECIAL + WORDS)}
PIECES = Regex(r"<\|[a-z_]+\|>|\[[A-Z_]+\]|[A-Za-z]+|\n|[^\w\s]")
"""Of Qwen-Image's template these make the 34 tokens that its pipeline drops."""
CHAT = "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}\n{% endfor %}"
MISTRAL_CHAT = (
    "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}\n{% endfor %}{% endfor %}"
)
EULER = {"use_dynamic_shifting": True, "base_image_seq_len": 8, "max_image_seq_len": 64}
CLIP = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "projection_dim": 8}
CAUSAL = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "initializer_range": 0.5,
}


@dataclass(frozen=True)
class Family:
    """One family: how it is built, and how its pipeline wants to be called."""

    build: Callable[[], DiffusionPipeline]
    adapter: Callable[..., VideoModel]
    guided: Callable[[float], dict[str, Any]] | None
    """Arguments of the call with true CFG; None: the family has none."""
    to_call: Callable[[Tensor], Tensor]
    """Our latents -> the call's."""
    from_call: Callable[[DiffusionPipeline, Tensor], Tensor]
    """What `output_type="latent"` gives -> our latents."""
    plain: dict[str, Any] = field(default_factory=dict)
    """Arguments of the call without true CFG."""
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")


def tokenizer(length: int, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that ends a text with </s>."""
    core = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(PIECES, "removed", invert=True)
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", VOCABULARY["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        model_max_length=length,
        padding_side="right",
        chat_template=chat_template,
    )


def clip(cls: type) -> Any:
    """A CLIP text tower of two layers."""
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    return cls(
        CLIPTextConfig(
            vocab_size=len(VOCABULARY),
            num_hidden_layers=2,
            max_position_embeddings=16,
            **CLIP,
            **ids,
        )
    )


def t5() -> T5EncoderModel:
    """A T5 encoder of one layer."""
    return T5EncoderModel(
        T5Config(vocab_size=len(VOCABULARY), d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    )


def vae(channels: int) -> AutoencoderKL:
    """An image VAE that halves each side."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=2,
        latent_channels=channels,
        scaling_factor=1.5,
        shift_factor=0.06,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def sd3() -> DiffusionPipeline:
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(4),
        text_encoder=clip(CLIPTextModelWithProjection),
        tokenizer=tokenizer(16),
        text_encoder_2=clip(CLIPTextModelWithProjection),
        tokenizer_2=tokenizer(16),
        text_encoder_3=t5(),
        tokenizer_3=tokenizer(LENGTH),
    )


def sd3_with_dynamic_shift() -> DiffusionPipeline:
    pipeline = sd3()
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(**EULER)
    return pipeline


def flux() -> DiffusionPipeline:
    torch.manual_seed(1)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=8,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**EULER),
        vae=vae(4),
        text_encoder=clip(CLIPTextModel),
        tokenizer=tokenizer(16),
        text_encoder_2=t5(),
        tokenizer_2=tokenizer(LENGTH),
    )


def flux2_vae() -> AutoencoderKLFlux2:
    """A VAE whose batch norm has seen something."""
    found = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=2,
        latent_channels=4,
    )
    found.bn.running_mean.normal_()
    found.bn.running_var.uniform_(0.5, 2.0)
    return found


def flux2_transformer(guidance_embeds: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=24,
        timestep_guidance_channels=16,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=guidance_embeds,
    )


def flux2_klein() -> DiffusionPipeline:
    torch.manual_seed(2)
    return Flux2KleinPipeline(
        transformer=flux2_transformer(guidance_embeds=False),
        scheduler=FlowMatchEulerDiscreteScheduler(**EULER),
        vae=flux2_vae(),
        text_encoder=Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=28, **CAUSAL)),
        tokenizer=tokenizer(LENGTH, CHAT),
    )


def flux2() -> DiffusionPipeline:
    torch.manual_seed(3)
    vision = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8, "head_dim": 4}
    config = Mistral3Config(
        text_config={"model_type": "mistral", "num_hidden_layers": 31, **CAUSAL},
        vision_config={"model_type": "pixtral", "intermediate_size": 8, "image_size": 28, **vision},
        image_token_index=VOCABULARY["[IMG]"],
    )
    return Flux2Pipeline(
        transformer=flux2_transformer(guidance_embeds=True),
        scheduler=FlowMatchEulerDiscreteScheduler(**EULER),
        vae=flux2_vae(),
        text_encoder=Mistral3ForConditionalGeneration(config),
        tokenizer=PixtralProcessor(
            PixtralImageProcessor(), tokenizer(LENGTH), chat_template=MISTRAL_CHAT
        ),
    )


def qwen_image() -> DiffusionPipeline:
    torch.manual_seed(4)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = {**CAUSAL, "hidden_size": 16, "num_hidden_layers": 2, "rope_parameters": rope}
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2}
    config = Qwen2_5_VLConfig(
        text_config={**text, "head_dim": 8}, vision_config={**vision, "out_hidden_size": 16}
    )
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(2, 2, 4),
    )
    autoencoder = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.0, 2.0, 0.5, 1.5],
    )
    return QwenImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**EULER, shift_terminal=0.02),
        vae=autoencoder,
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=tokenizer(LENGTH),
    )


def normalize_patches(pipeline: DiffusionPipeline, codes: Tensor) -> Tensor:
    """FLUX.2's VAE codes as the network's latents."""
    bn = pipeline.vae.bn
    std = (bn.running_var + pipeline.vae.config.batch_norm_eps).sqrt()
    patches = pipeline._patchify_latents(codes)
    return ((patches - bn.running_mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1))[:, :, None]


def drop_frame(latents: Tensor) -> Tensor:
    return latents[:, :, 0]


def from_tokens(_: DiffusionPipeline, tokens: Tensor) -> Tensor:
    return unpack(tokens, HEIGHT // 2)


SD3 = Family(
    build=sd3,
    adapter=Sd3Model,
    guided=lambda scale: {"guidance_scale": scale, "negative_prompt": ""},
    plain={"guidance_scale": 1.0},
    to_call=drop_frame,
    from_call=lambda _, latents: latents[:, :, None],
)
FAMILIES = {
    "sd3": SD3,
    "sd3-dynamic": Family(**{**SD3.__dict__, "build": sd3_with_dynamic_shift}),
    "flux": Family(
        build=flux,
        adapter=FluxModel,
        guided=lambda scale: {"true_cfg_scale": scale, "negative_prompt": ""},
        to_call=pack,
        from_call=from_tokens,
    ),
    "flux2-klein": Family(
        build=flux2_klein,
        adapter=Flux2Model,
        guided=lambda scale: {"guidance_scale": scale},
        plain={"guidance_scale": 1.0},
        to_call=drop_frame,
        from_call=normalize_patches,
    ),
    "flux2": Family(
        build=flux2,
        adapter=Flux2Model,
        guided=None,
        to_call=drop_frame,
        from_call=lambda _, x: rearrange(x, "b (h w) c -> b c 1 h w", h=HEIGHT // 4),
        targets=("to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj"),
    ),
    "qwen-image": Family(
        build=qwen_image,
        adapter=QwenImageModel,
        guided=lambda scale: {"true_cfg_scale": scale, "negative_prompt": ""},
        plain={"true_cfg_scale": 1.0},
        to_call=pack,
        from_call=from_tokens,
    ),
}
