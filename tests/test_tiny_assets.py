"""The trained models of the digit world: they load, they agree, they can do what cards say."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from torch.nn.functional import normalize

from pipelines.tiny.clip import all_captions, embed_images, embed_texts
from pipelines.tiny.measure import accuracy, read_colours, read_directions, sample, through_vae
from pipelines.tiny.pick import pair_accuracy
from pipelines.tiny.world import Combination, choose, combinations, draw, pictures

ASSETS = Path(__file__).parent.parent / "assets"


@pytest.fixture(scope="module")
def pipeline():
    loaded = WanPipeline.from_pretrained(ASSETS / "tiny-wan", dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def load_judge(folder: Path):
    from transformers import AutoTokenizer, CLIPModel

    return CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_a_fifth_is_held_out_and_every_attribute_is_on_both_sides() -> None:
    held_out, train = combinations(held_out=True), combinations(held_out=False)
    assert (len(held_out), len(train)) == (32, 128)
    assert not set(held_out) & set(train)
    for attribute, kinds in (("digit", 10), ("colour", 4), ("direction", 4)):
        for side in (held_out, train):
            counts = Counter(getattr(one, attribute) for one in side)
            assert len(counts) == kinds
            assert max(counts.values()) - min(counts.values()) <= 1
    shown = {tuple(p.flatten().tolist()) for p in pictures(held_out=False)[0]}
    assert not any(tuple(p.flatten().tolist()) in shown for p in pictures(held_out=True)[0])


@pytest.mark.parametrize(("name", "held_out"), [("digits_train", False), ("digits_heldout", True)])
def test_prompt_files_are_the_two_sides_of_the_split(name: str, held_out: bool) -> None:
    text = (ASSETS / f"prompts/{name}.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [Combination(**line["metadata"]) for line in lines] == combinations(held_out=held_out)
    assert [line["text"] for line in lines] == [o.caption for o in combinations(held_out=held_out)]


def test_the_vae_keeps_colour_and_motion_of_handwriting_it_has_not_seen(pipeline) -> None:
    generator = torch.Generator().manual_seed(0)
    shown = choose(combinations(), 16, generator)
    videos = draw(shown, held_out=True, generator=generator)
    decoded = through_vae(pipeline.vae, videos)
    assert 4 * (decoded - videos).square().mean() < 0.008
    assert read_colours(decoded) == [one.colour for one in shown]
    assert read_directions(decoded) == [one.direction for one in shown]


def test_samples_follow_held_out_prompts_in_part(pipeline) -> None:
    """Well above chance (0.25) and well below 1: alignment has something to gain."""
    generator = torch.Generator().manual_seed(0)
    asked = combinations(held_out=True) * 2
    found = accuracy(sample(pipeline, asked, generator), asked, lambda videos: [0] * len(videos))
    assert 0.4 < found["colour"] < 0.9
    assert 0.4 < found["direction"] < 0.9


def test_open_clip_and_transformers_read_the_same_weights() -> None:
    import open_clip

    name = f"local-dir:{ASSETS / 'tiny-clip'}"
    theirs = open_clip.create_model(name).eval()
    ours, tokenizer = load_judge(ASSETS / "tiny-clip/transformers")
    texts = [one.caption for one in combinations(held_out=True)]
    frames = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = theirs.encode_text(open_clip.get_tokenizer(name)(texts), normalize=True)
        torch.testing.assert_close(found, embed_texts(ours, tokenizer, texts), atol=1e-5, rtol=0)
        found = normalize(theirs.encode_image(2 * frames - 1), dim=-1)
        torch.testing.assert_close(found, embed_images(ours, frames), atol=1e-5, rtol=0)


def test_tiny_clip_reads_colour_always_and_digit_mostly() -> None:
    model, tokenizer = load_judge(ASSETS / "tiny-clip/transformers")
    generator = torch.Generator().manual_seed(0)
    shown = choose(combinations(), 100, generator)
    frames = draw(shown, held_out=True, generator=generator)[:, 4]
    with torch.no_grad():
        scores = embed_images(model, frames) @ embed_texts(model, tokenizer, all_captions()).T
    best = [divmod(index, 4) for index in scores.argmax(1).tolist()]
    colours = ["red", "green", "blue", "yellow"]
    assert all(colours[c] == one.colour for (_, c), one in zip(best, shown, strict=True))
    assert sum(d == one.digit for (d, _), one in zip(best, shown, strict=True)) > 45


def test_tiny_pick_prefers_the_better_picture_of_a_held_out_pair() -> None:
    found = pair_accuracy(*load_judge(ASSETS / "tiny-pick"), count=200)
    assert found["pairs/digit"] > 0.8
    assert min(found.values()) > 0.8
