"""Published methods by name, one file each."""

from pipelines.video_diffusion import flow_grpo, sage_grpo
from pipelines.vision_language import med_r1

__all__ = ["flow_grpo", "med_r1", "sage_grpo"]
