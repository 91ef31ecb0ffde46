"""Peak memory of a run, phase by phase, from its config and the model's config files alone.

Parameters and decoder are counted on shapes; activations are formulas whose constants were
measured on the tiny models (tests/test_doctor.py). One process without sharding is assumed, and
attention that never stores its table. Not counted: the allocator's cracks, kernels' workspace, the
text encoder's activations, a backward pass through the decoder, and what a vLLM engine reserves.
"""

from __future__ import annotations

from mmrl.doctor.items import Estimate
from mmrl.doctor.video import estimate_video
from mmrl.doctor.vlm import estimate_vlm
from mmrl.recipe import PipelineConfig
from mmrl.video_recipe import VideoPipelineConfig
from mmrl.vlm_recipe import VlmPipelineConfig


def estimate(config: PipelineConfig) -> Estimate:
    """Peak memory of the config's run; ConfigError where the model's config files are not here."""
    if isinstance(config, VideoPipelineConfig):
        return estimate_video(config)
    assert isinstance(config, VlmPipelineConfig), "a pipeline is of one of two families"
    return estimate_vlm(config)
