"""Published methods by name, one file each."""

from pipelines.video_diffusion import flow_grpo, sage_grpo

__all__ = ["flow_grpo", "sage_grpo"]
