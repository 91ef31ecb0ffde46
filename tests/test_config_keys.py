"""What `mmrl keys` says is what the config classes say."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from mmrl.cli import app
from mmrl.config import Config
from mmrl.config_keys import lines_of
from mmrl.recipe import pipelines


class Part(Config):
    """A part of it."""

    size: int = Field(ge=1)
    """How large
    it is."""
    ends: tuple[str, ...] = ()


class Left(Config):
    kind: Literal["left"]


class Right(Config):
    kind: Literal["right", "far"]


class Whole(Config):
    name: str
    part: Part = Part(size=3)
    other: Part | None = None
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    side: Left | Right
    again: Left | Right | None = None
    late: Late | None = None


class Late(Config):
    flag: bool = True


WHOLE = """\
name: text (required)
part: section = as below
    # A part of it.
  size: int >= 1 = 3
      # How large it is.
  ends: list of text = []
other: section | null = null
    # A part of it.
  size: int >= 1 (required)
      # How large it is.
  ends: list of text = []
share: float > 0, < 1 = 0.5
side: section (required)
  [Left]
    kind: left (required)
  [Right]
    kind: right | far (required)
again: section | null = null
    # sections as above: Left, Right
late: section | null = null
  flag: bool = true"""


def test_keys_have_type_bounds_default_meaning_and_their_sections_below_them() -> None:
    assert "\n".join(lines_of(Whole)) == WHOLE


@pytest.mark.parametrize("name", pipelines.names())
def test_every_key_of_every_pipeline_is_listed(name: str) -> None:
    schema: type[BaseModel] = pipelines.get(name)
    tops = [line.split(":")[0] for line in lines_of(schema) if not line.startswith(" ")]
    assert tops == list(schema.model_fields)
    assert not [line for line in lines_of(schema) if "ForwardRef" in line or "<class" in line]


def test_a_reward_has_its_weight_and_its_faults_too() -> None:
    done = CliRunner().invoke(app, ["keys", "smoothness"])
    assert done.exit_code == 0, done.output
    for line in ("tolerance: float > 0 = 0.05", "weight: float = 1.0", "  retries: int >= 0 = 2"):
        assert line in done.output.splitlines()


def test_the_version_is_printed_alone() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0 and done.output.split()[0] == "mmrl"
