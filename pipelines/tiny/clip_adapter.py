"""Fit assets/heads/clip_b16_adapter.safetensors, from sentence embeddings to CLIP's image space.

Needs `mmrl data fetch` of clip_b16_image, minilm, video_real and template_media. Media are merged
into clusters: near prompts, near pictures, one workflow. Clusters with a video of `video_real`
are left out of the shipped fit, so that suite stays unseen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from rich.progress import track
from torch import Tensor
from torch.nn.functional import normalize

import mmrl.models  # noqa: F401
from mmrl.data.files import cache_folder
from mmrl.data.video import read_video
from mmrl.evaluate.alignment import Retrieval, retrieval
from mmrl.models.clip_b16 import clip_b16_image
from mmrl.models.sentences import embed_texts
from mmrl.models.text_adapter import TextAdapter, fit_adapter, save_adapter
from mmrl.models.weights import CLIP_B16_IMAGE, MINILM

RIDGE = 3.0
NEAR_TEXT, NEAR_IMAGE = 0.8, 0.9
"""Cosines above which two media count as one cluster."""
FOLDS = 5
NUM_FRAMES = {"video_real": 4, "template_media": 1}
"""Frames of a video: as many as the reward looks at; of the fit's media the middle one."""
OUTPUT = Path("assets/heads/clip_b16_adapter.safetensors")


@dataclass(frozen=True)
class Media:
    """Embeddings of prompted media, and the cluster of each."""

    texts: Float[Tensor, "N T"]
    images: Float[Tensor, "N V"]
    clusters: np.ndarray
    in_suite: np.ndarray


def load_media() -> Media:
    """All media of the two data sets; a video is the mean of its frames' embeddings."""
    embed = clip_b16_image("disk")
    texts, images, workflows, in_suite = [], [], [], []
    for name in ("video_real", "template_media"):
        folder = cache_folder() / name
        lines = (folder / "index.jsonl").read_text(encoding="utf-8").splitlines()
        for entry in track([json.loads(line) for line in lines], description=name):
            if is_result(entry):
                count = NUM_FRAMES[name]
                frames = embed.video(read_video(folder / entry["video"], count), count)
                images.append(normalize(frames.mean(0), dim=-1))
                texts.append(entry["prompt"])
                workflows.append(entry["metadata"]["workflow"])
                in_suite.append(name == "video_real")
    text_rows, image_rows = embed_texts(texts), torch.stack(images)
    clusters = cluster(text_rows, image_rows, workflows)
    return Media(text_rows, image_rows, clusters, np.array(in_suite))


def is_result(entry: dict) -> bool:
    """Whether a medium is what a workflow made (its first), beside the prompt of that workflow."""
    return (
        Path(entry["video"]).stem.endswith("-1") and entry["metadata"].get("pair") != "mismatched"
    )


def cluster(
    texts: Float[Tensor, "N T"], images: Float[Tensor, "N V"], workflows: list[str]
) -> np.ndarray:
    """Connected components of: near prompts, near pictures, or the same workflow."""
    from scipy.sparse.csgraph import connected_components

    names = np.array(workflows)
    near = (texts @ texts.T > NEAR_TEXT) | (images @ images.T > NEAR_IMAGE)
    return connected_components(near.numpy() | (names[:, None] == names[None]))[1]


def cross_validated(media: Media) -> Retrieval:
    """Retrieval among one medium a cluster, each fold by an adapter fitted on the others."""
    numbers = np.random.default_rng(0).permutation(media.clusters.max() + 1)
    fold_of = numbers[media.clusters] % FOLDS
    found = []
    for fold in range(FOLDS):
        train = torch.from_numpy(fold_of != fold)
        adapter = fit_adapter(media.texts[train], media.images[train], RIDGE)
        held = np.flatnonzero(fold_of == fold)
        first = held[np.unique(media.clusters[held], return_index=True)[1]]
        found.append(similarities(adapter, media, first))
    return retrieval(found)


def similarities(adapter: TextAdapter, media: Media, chosen: np.ndarray) -> np.ndarray:
    """Score of every chosen text (rows) with every chosen picture (columns)."""
    texts, images = adapter.map_texts(media.texts[chosen]), adapter.map_images(media.images[chosen])
    return (texts @ images.T).numpy()


def main() -> None:
    """Print the cross-validation, write the adapter fitted off the suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output = parser.parse_args().output
    media = load_media()
    print(f"{len(media.texts)} media, {media.clusters.max() + 1} clusters")
    print(f"{FOLDS}-fold by cluster: {cross_validated(media).told()}")
    seen = ~np.isin(media.clusters, media.clusters[media.in_suite])
    train = torch.from_numpy(seen)
    adapter = fit_adapter(media.texts[train], media.images[train], RIDGE)
    suite = np.flatnonzero(media.in_suite)
    print(f"video_real, unseen: {retrieval([similarities(adapter, media, suite)]).told()}")
    output.parent.mkdir(parents=True, exist_ok=True)
    counts = f"{int(seen.sum())} media of template_media, {_clusters(media, seen)} clusters"
    told = {
        "fitted_on": counts,
        "ridge": str(RIDGE),
        "text_sha256": MINILM.sha256,
        "image_sha256": CLIP_B16_IMAGE.sha256,
    }
    save_adapter(output, adapter, told)
    print(f"{output}: sha256 {hashlib.sha256(output.read_bytes()).hexdigest()}")


def _clusters(media: Media, chosen: np.ndarray) -> int:
    return len(np.unique(media.clusters[chosen]))


if __name__ == "__main__":
    main()
