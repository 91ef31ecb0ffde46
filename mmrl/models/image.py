"""What the adapters of image models do alike: size, packing, one frame."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# (diffusers types its own returns loosely)

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mmrl.config import ConfigError
from mmrl.models.size import check_side
from mmrl.policies.video_model import Latents, VideoSize


def check_image_size(size: VideoSize, multiple: int) -> None:
    """ConfigError unless the size is one frame whose sides are multiples of `multiple` pixels."""
    if size.num_frames != 1:
        raise ConfigError(
            f"an image model makes 1 frame, got {size.num_frames}", key="video.num_frames"
        )
    check_side("height", size.height, multiple)
    check_side("width", size.width, multiple)


def pack(latents: Latents) -> Float[Tensor, "B S C4"]:
    """Patches of 2 x 2 latents as tokens, row by row; channels before rows and columns."""
    return rearrange(latents, "b c 1 (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


def unpack(tokens: Float[Tensor, "B S C4"], height: int) -> Latents:
    """The inverse of `pack` for latents `height` rows high."""
    return rearrange(tokens, "b (h w) (c p q) -> b c 1 (h p) (w q)", h=height // 2, p=2, q=2)


def image_codes(vae: nn.Module, videos: Float[Tensor, "B 1 3 H W"]) -> Float[Tensor, "B C h w"]:
    """The mode of the VAE's posterior of images in [0, 1], as the VAE scales it."""
    pixels = (2 * videos[:, 0] - 1).to(vae.device, vae.dtype)
    return vae.encode(pixels).latent_dist.mode()


def as_video(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 3 H W"]:
    """Images as videos of one frame, in float32."""
    return rearrange(images, "b c h w -> b 1 c h w").float()
