"""The data sets that `mmrl data fetch` knows, one file each."""

from mmrl.data.packaged import brain_mri, chest_xray, easy_vqa, emr_recording, gui_grounding
from mmrl.data.packaged.dataset import Dataset

DATASETS: dict[str, Dataset] = {
    "brain_mri": brain_mri.DATASET,
    "chest_xray": chest_xray.DATASET,
    "easy_vqa": easy_vqa.DATASET,
    "emr_recording": emr_recording.DATASET,
    "gui_grounding": gui_grounding.DATASET,
}
