"""The data sets and weights that `mmrl data fetch` knows."""

from mmrl.data.packaged import (
    brain_mri,
    carphone,
    chest_xray,
    easy_vqa,
    emr_recording,
    gui_grounding,
    gui_windows,
    template_media,
    video_real,
    weights,
)
from mmrl.data.packaged.dataset import Dataset

DATASETS: dict[str, Dataset] = {
    "brain_mri": brain_mri.DATASET,
    "carphone": carphone.DATASET,
    "chest_xray": chest_xray.DATASET,
    "clip_b16_image": weights.CLIP_B16_IMAGE,
    "dinov2_s14": weights.DINOV2_S14,
    "easy_vqa": easy_vqa.DATASET,
    "emr_recording": emr_recording.DATASET,
    "gui_grounding": gui_grounding.DATASET,
    "gui_windows": gui_windows.DATASET,
    "minilm": weights.MINILM,
    "mobilenet_v2": weights.MOBILENET_V2,
    "nudenet": weights.NUDENET,
    "template_media": template_media.DATASET,
    "vbench_motion": weights.MOTION,
    "video_real": video_real.DATASET,
}
