"""CLIP models as image and text embeddings, from an open_clip or a transformers folder."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false
# (the libraries behind this adapter type their own returns loosely)

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from mmrl.config import ConfigError
from mmrl.data.video import to_uint8, uniform_indices
from mmrl.models.place import CPU, Place, to_host


@dataclass(frozen=True)
class ClipModel:
    """Unit embeddings of pictures and texts, on the CPU in float32; the scale of their cosine."""

    embed_images: Callable[[UInt8[Tensor, "N 3 H W"]], Float[Tensor, "N D"]]
    embed_texts: Callable[[list[str]], Float[Tensor, "N D"]]
    logit_scale: float
    """exp of the stored parameter."""

    @torch.no_grad()
    def video_text_cosine(
        self,
        videos: Sequence[Float[Tensor, "_ 3 _ _"]],
        texts: Sequence[str],
        *,
        num_frames: int,
        rows: int,
    ) -> Float[Tensor, " B"]:
        """Mean over `num_frames` evenly spread frames of the cosine with the text.

        Pixels are rounded to 8 bits first, as a saved file would hold them.
        """
        picked = [video[uniform_indices(len(video), num_frames)] for video in videos]
        images = torch.cat(
            [
                self.embed_images(part)
                for _, same in groupby(map(to_uint8, picked), key=lambda frames: frames.shape[1:])
                for part in torch.cat(list(same)).split(rows)
            ]
        )
        unique = list(dict.fromkeys(texts))
        known = dict(zip(unique, self.embed_texts(unique), strict=True))
        cosines = [
            (part @ known[text]).mean()
            for part, text in zip(images.split([len(p) for p in picked]), texts, strict=True)
        ]
        return torch.stack(cosines)


def load_clip(
    path: str,
    *,
    place: Place = CPU,
    checkpoint: Path | None = None,
    pad_to_square: bool = False,
) -> ClipModel:
    """The CLIP in a folder, run at `place`; ConfigError where neither library's layout is found.

    For open_clip folders, `checkpoint` is a file with other weights of the same architecture, and
    `pad_to_square` resizes the longer side and pads with black, where CLIP cuts the middle out.
    """
    folder = Path(path)
    if checkpoint or pad_to_square:
        check_open_clip_folder(path)
    check_clip_folder(path)
    if (folder / "open_clip_config.json").is_file():
        return _load_open_clip(folder, place, checkpoint, pad_to_square=pad_to_square)
    return _load_transformers(folder, place)


def check_clip_folder(path: str) -> None:
    """ConfigError where neither library's layout is found; nothing is loaded."""
    if not any((Path(path) / name).is_file() for name in ("open_clip_config.json", "config.json")):
        raise ConfigError(
            f"{path} holds neither open_clip_config.json nor config.json: not a CLIP folder (hub "
            "ids are not read: download the model and name its folder)",
            key="model",
        )


def check_open_clip_folder(path: str) -> None:
    """ConfigError where open_clip's layout is not found; nothing is loaded."""
    if not (Path(path) / "open_clip_config.json").is_file():
        raise ConfigError(f"{path} is no open_clip folder", key="model")


def _load_open_clip(
    folder: Path, place: Place, checkpoint: Path | None, *, pad_to_square: bool
) -> ClipModel:
    import open_clip
    from PIL import Image

    if checkpoint is None and not any(folder.glob("open_clip_*model*")):
        raise ConfigError(f"{folder} holds no weights (open_clip_model.safetensors)", key="model")
    model, _, preprocess = open_clip.create_model_and_transforms(
        f"local-dir:{folder}",
        load_weights=checkpoint is None,
        image_resize_mode="longest" if pad_to_square else None,
    )
    if checkpoint is not None:
        _load_checkpoint(model, checkpoint)
    scale = model.logit_scale.exp().item()
    model = place.holds(model)
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
        return to_host(model.encode_image(place.floats(pixels), normalize=True))

    def embed_texts(texts: list[str]) -> Float[Tensor, "N D"]:
        return to_host(model.encode_text(place.whole(tokenizer(texts)), normalize=True))

    return ClipModel(embed_images, embed_texts, scale)


def _load_checkpoint(model: torch.nn.Module, checkpoint: Path) -> None:
    """Every weight of the model from the file; ConfigError for a missing file or another model."""
    if not checkpoint.is_file():
        raise ConfigError(f"{checkpoint}: no such file", key="checkpoint")
    if checkpoint.suffix == ".safetensors":
        weights = load_file(checkpoint)
    else:
        found = torch.load(checkpoint, map_location="cpu", weights_only=True)
        weights = found.get("state_dict", found)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ConfigError(
            f"{checkpoint} does not fit the model: {reason}", key="checkpoint"
        ) from error


def _load_transformers(folder: Path, place: Place) -> ClipModel:
    from transformers import CLIPModel, CLIPProcessor

    kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    if kind != "clip":
        raise ConfigError(f"{folder} holds a '{kind}' model, not a CLIP", key="model")
    model = CLIPModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    scale = model.logit_scale.exp().item()
    model = place.holds(model)
    processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    length = model.config.text_config.max_position_embeddings

    def embed_images(frames: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        pixels = processor.image_processor(list(frames), return_tensors="pt")["pixel_values"]
        found = model.get_image_features(place.floats(pixels))
        return normalize(to_host(found.pooler_output), dim=-1)

    def embed_texts(texts: list[str]) -> Float[Tensor, "N D"]:
        inputs = processor.tokenizer(
            texts, padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        ids, mask = place.whole(inputs["input_ids"]), place.whole(inputs["attention_mask"])
        found = model.get_text_features(ids, mask)
        return normalize(to_host(found.pooler_output), dim=-1)

    return ClipModel(embed_images, embed_texts, scale)
