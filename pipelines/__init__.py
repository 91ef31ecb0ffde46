"""Published methods by name, one file each."""

from pipelines.video_diffusion import (
    awm,
    dance_grpo,
    ddpo,
    diffusion_dpo,
    diffusion_nft,
    draft_k,
    flow_cps,
    flow_grpo,
    grpo_guard,
    mix_grpo,
    prdp,
    sage_grpo,
)
from pipelines.vision_language import grpo, gui_libra, hylar, med_r1, sophia_vl, sweet_spot

__all__ = [
    "awm",
    "dance_grpo",
    "ddpo",
    "diffusion_dpo",
    "diffusion_nft",
    "draft_k",
    "flow_cps",
    "flow_grpo",
    "grpo",
    "grpo_guard",
    "gui_libra",
    "hylar",
    "med_r1",
    "mix_grpo",
    "prdp",
    "sage_grpo",
    "sophia_vl",
    "sweet_spot",
]
