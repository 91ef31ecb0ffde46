"""Med-R1's choices: three templates, and configs that cannot be what was meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmrl.config import ConfigError, apply_overrides
from mmrl.data.prompts import DataError
from mmrl.reward import load_reward
from mmrl.train.loop import load_config
from mmrl.types import Prompt, TextSample
from pipelines.vision_language.med_r1 import SHORTEST, TEMPLATES
from tests.tiny import vlm_config, write_pictures


def tree(folder: Path, *overrides: str) -> dict:
    return apply_overrides(vlm_config(folder / "run", folder / "data"), overrides)


@pytest.mark.parametrize("template", list(TEMPLATES))
def test_a_template_builds_and_its_shortest_answer_fits_its_format_alone(
    template: str, tmp_path: Path
) -> None:
    """No text fits two of the three forms."""
    fits = {
        other: load_reward("answer_format", template=other)(
            [TextSample(Prompt("?"), SHORTEST[template])]
        ).item()
        for other in TEMPLATES
    }
    assert fits == {other: float(other == template) for other in TEMPLATES}
    chosen = [f"template={template}", f"rewards.answer_format.template={template}"]
    recipe = load_config(tree(tmp_path, *chosen, "max_new_tokens=32")).build()
    assert recipe.policy.prompt_template == TEMPLATES[template]  # pyright: ignore


@pytest.mark.parametrize("variant", ["fixed", "released"])
@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("<answer>C</answer> \n<think>because</think>", 1.0),
        ("<think>because</think><answer>C</answer>", 0.0),
        ("<answer>C</answer><think>because</think> I am sure.", 0.0),
        ("<answer>C</answer>", 0.0),
    ],
)
def test_think_after_wants_the_answer_and_then_its_explanation(
    text: str, fits: float, variant: str
) -> None:
    reward = load_reward("answer_format", template="think_after", variant=variant)
    assert reward([TextSample(Prompt("?"), text)]).item() == fits


def test_answer_first_changes_the_format_and_not_the_accuracy() -> None:
    sample = TextSample(Prompt("?", answer="C"), "<answer>C</answer><think>because</think>")
    assert load_reward("accuracy")([sample]).item() == 1
    assert load_reward("answer_format")([sample]).item() == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["template=no_think"], r"rewards.answer_format.template: 'think' rewards another form"),
        (
            ["template=later"],
            r"template: no such choice: 'later' \(known: no_think, think, think_after",
        ),
        (["group_size=1"], "a group of 1 has no advantage"),
        (["train.rows=3"], "3 rows cut a group of 2"),
    ],
)
def test_a_config_of_no_use_is_one_clear_error(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(tree(tmp_path, *overrides))


@pytest.mark.parametrize("written", ["{same}", "[{same}]", "[other.jsonl, {folder}/../{name}]"])
def test_the_training_side_is_no_test_side(written: str, tmp_path: Path) -> None:
    same = Path(tree(tmp_path)["prompts"])
    folder = same.parent / "inside"
    folder.mkdir()
    asked = written.format(same=same, folder=folder, name=same.name)
    with pytest.raises(ConfigError, match=rf"evaluate.prompts: .*{same.name} is also the training"):
        load_config(tree(tmp_path, f"evaluate.prompts={asked}"))


def test_a_fetched_file_is_the_training_side_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMRL_CACHE", str(tmp_path))
    tested = f"evaluate.prompts={tmp_path}/scans/train.jsonl"
    with pytest.raises(ConfigError, match=r"train\.jsonl is also the training side"):
        load_config(tree(tmp_path, "prompts=[more.jsonl, cache:scans/train.jsonl]", tested))
    other = tested.replace("train", "test")
    assert load_config(tree(tmp_path, "prompts=cache:scans/train.jsonl", other)).evaluate


def test_a_limit_that_does_not_hold_the_blocks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_new_tokens: 4 tokens do not hold the blocks"):
        load_config(tree(tmp_path, "max_new_tokens=4")).build()


def test_a_prompt_that_is_no_multiple_choice_is_named(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "other")
    entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    entries[-1]["answer"] = "E"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    with pytest.raises(DataError, match=r"has the answer 'E', which is none of its options"):
        load_config(tree(tmp_path, f"prompts={path}")).build()


def test_a_split_by_picture_trains_on_no_picture_of_the_evaluation(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "held_out", count=2)
    asked = [f"evaluate.prompts={path}", "split_by_picture=true"]
    both, apart = (load_config(tree(tmp_path, *asked[:n])).build().prompts for n in (1, 2))
    assert (len(both), len(apart)) == (6, 4)
    assert [prompt.images[0].name for prompt in apart] == ["2.png", "3.png", "4.png", "5.png"]
