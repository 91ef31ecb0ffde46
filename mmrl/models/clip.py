"""CLIP models as image and text embeddings, from an open_clip or a transformers folder."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from mmrl.config import ConfigError
from mmrl.data.video import uniform_indices


@dataclass(frozen=True)
class ClipModel:
    """Unit embeddings of pictures and texts, and the learned scale of their cosine."""

    embed_images: Callable[[UInt8[Tensor, "N 3 H W"]], Float[Tensor, "N D"]]
    embed_texts: Callable[[list[str]], Float[Tensor, "N D"]]
    logit_scale: float
    """exp of the stored parameter."""

    @torch.no_grad()
    def video_text_cosine(
        self,
        videos: Sequence[Float[Tensor, "F 3 H W"]],
        texts: Sequence[str],
        *,
        num_frames: int,
        rows: int,
    ) -> Float[Tensor, " B"]:
        """Mean over `num_frames` evenly spread frames of the cosine with the text.

        Pixels are rounded to 8 bits first, as a saved file would hold them.
        """
        picked = [video[uniform_indices(len(video), num_frames)] for video in videos]
        frames = torch.cat([to_uint8(frame) for frame in picked])
        images = torch.cat([self.embed_images(part) for part in frames.split(rows)])
        unique = list(dict.fromkeys(texts))
        known = dict(zip(unique, self.embed_texts(unique), strict=True))
        cosines = [
            (part @ known[text]).mean()
            for part, text in zip(images.split([len(p) for p in picked]), texts, strict=True)
        ]
        return torch.stack(cosines)


def to_uint8(video: Float[Tensor, "F 3 H W"]) -> UInt8[Tensor, "F 3 H W"]:
    """round(255 x) after clamping to [0, 1]; pixels that are not finite are refused."""
    if not torch.isfinite(video).all():
        raise ValueError("pixels are not finite")
    return (video.clamp(0, 1) * 255).round().to(torch.uint8)


def load_clip(path: str) -> ClipModel:
    """The CLIP in a folder; ConfigError where neither library's layout is found."""
    folder = Path(path)
    if (folder / "open_clip_config.json").is_file():
        return _load_open_clip(folder)
    if (folder / "config.json").is_file():
        return _load_transformers(folder)
    raise ConfigError(
        f"{path} holds neither open_clip_config.json nor config.json: not a CLIP folder",
        key="model",
    )


def _load_open_clip(folder: Path) -> ClipModel:
    import open_clip
    from PIL import Image

    name = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    model.eval()
    length = model.context_length
    if (folder / "tokenizer.json").is_file():
        tokenizer = open_clip.tokenizer.HFTokenizer(
            str(folder), context_length=length, clean="whitespace"
        )
    else:
        tokenizer = open_clip.SimpleTokenizer(context_length=length)

    def embed_images(frames: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        arrays = rearrange(frames, "n c h w -> n h w c").numpy()
        pixels = torch.stack([preprocess(Image.fromarray(array)) for array in arrays])
        return model.encode_image(pixels, normalize=True)

    def embed_texts(texts: list[str]) -> Float[Tensor, "N D"]:
        return model.encode_text(tokenizer(texts), normalize=True)

    return ClipModel(embed_images, embed_texts, model.logit_scale.exp().item())


def _load_transformers(folder: Path) -> ClipModel:
    from transformers import CLIPModel, CLIPProcessor

    kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    if kind != "clip":
        raise ConfigError(f"{folder} holds a '{kind}' model, not a CLIP", key="model")
    model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
    processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    length = model.config.text_config.max_position_embeddings

    def embed_images(frames: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        inputs = processor.image_processor(list(frames), return_tensors="pt")
        return normalize(model.get_image_features(**inputs).pooler_output, dim=-1)

    def embed_texts(texts: list[str]) -> Float[Tensor, "N D"]:
        inputs = processor.tokenizer(
            texts, padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        found = model.get_text_features(inputs["input_ids"], inputs["attention_mask"])
        return normalize(found.pooler_output, dim=-1)

    return ClipModel(embed_images, embed_texts, model.logit_scale.exp().item())
