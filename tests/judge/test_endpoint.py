"""The HTTP judge against a real server with a real tiny model, in health and in failure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmrl.config import ConfigError, parse
from mmrl.judge.base import Question, Reply
from mmrl.judge.endpoint import EndpointJudge, JudgeError
from mmrl.judge.local import LocalJudge
from mmrl.reward import RewardError, RewardTable, RewardUnavailable
from mmrl.types import Prompt, TextSample
from tests.judge.server import MODEL, ChatServer, serving


@pytest.fixture(scope="module")
def local() -> LocalJudge:
    return LocalJudge(model=MODEL, max_new_tokens=24, rows=4)


@pytest.fixture
def chat(local: LocalJudge) -> Iterator[ChatServer]:
    with serving(ChatServer(local)) as found:
        yield found


def ask(judge, questions: Sequence[Question]) -> list[Reply]:
    return asyncio.run(judge.ask(questions))


def judge_of(chat: ChatServer, **changes) -> EndpointJudge:
    return EndpointJudge(url=chat.url, model="tiny", **changes)


def table(url: str, name: str = "thinking_reward", *, judge=None, faults=None, **fields):
    """The reward as a config has it, without waits between tries or for an outage."""
    section = {"kind": "endpoint", "url": url, "model": "tiny", **(judge or {})}
    faults = {"backoff_s": 0, "retries": 2, "breaker_rest_s": 0, "outage_s": 0, **(faults or {})}
    return RewardTable.parse({name: {"judge": section, "faults": faults, **fields}})


def pictures(count: int) -> list[Image.Image]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (count, 112, 112, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(one.numpy()) for one in noise]


def questions(count: int, *, first_token: bool = False) -> list[Question]:
    """Texts of different length with one picture each; the last one has none."""
    texts = [f"What does it show? {'Look well. ' * n}" for n in range(count)]
    shown = [(image,) for image in pictures(count - 1)]
    pairs = zip(texts, [*shown, ()], strict=True)
    return [Question(text, images, first_token) for text, images in pairs]


def samples(count: int) -> list[TextSample]:
    return [TextSample(Prompt("what?"), f"<think>{n}</think>") for n in range(count)]


YES = {"name": "vlm_judge", "question": "{prompt} {response} yes or no?"}


def test_a_model_behind_the_endpoint_replies_as_the_same_model_in_this_process(chat, local) -> None:
    asked = questions(3, first_token=True)
    far, near = ask(judge_of(chat), asked), ask(local, asked)
    assert [reply.text for reply in far] == [reply.text for reply in near]
    assert all(reply.text for reply in far)
    for one, other in zip(far, near, strict=True):
        assert one.first_token == pytest.approx(other.first_token, abs=1e-4)
        assert len(one.first_token) == 20
    sent = chat.seen[0]
    assert (sent["temperature"], sent["seed"], sent["max_tokens"]) == (0.0, 0, 256)


def test_log_probs_are_asked_for_only_where_they_are_read(chat) -> None:
    [reply] = ask(judge_of(chat), questions(1))
    assert "logprobs" not in chat.seen[0] and reply.first_token == {}


def test_a_picture_file_and_the_picture_itself_are_sent_alike(chat, local, tmp_path: Path) -> None:
    [image] = pictures(1)
    image.save(tmp_path / "a.png")
    asked = [Question("What is it?", (tmp_path / "a.png",)), Question("What is it?", (image,))]
    found = ask(judge_of(chat), asked)
    assert found[0].text == found[1].text == ask(local, asked)[0].text


@pytest.mark.parametrize("fault", [429, 500, 503])
def test_a_busy_or_failing_server_is_asked_again(chat, fault: int) -> None:
    chat.faults = [fault, fault]
    rewards = table(chat.url)
    rewards.score_samples(samples(1))
    assert len(chat.seen) == 3
    assert rewards.counts()["reward/thinking_reward/retries"] == 2
    assert rewards.counts()["reward/thinking_reward/unavailable"] == 0


def test_a_silent_server_is_given_up_after_the_timeout_and_asked_again(chat) -> None:
    chat.faults = [0]
    rewards = table(chat.url, faults={"timeout_s": 0.5})
    rewards.score_samples(samples(1))
    assert len(chat.seen) == 2
    assert rewards.counts()["reward/thinking_reward/timeout"] == 0


def test_a_question_that_fails_for_good_has_no_score_and_the_others_keep_theirs(chat) -> None:
    chat.faults = [503] * 3
    rewards = table(chat.url, **YES, faults={"retries": 0, "budget": 1})
    values = rewards.score_samples(samples(8))["vlm_judge"]
    assert rewards.counts()["reward/vlm_judge/unavailable"] == 3
    assert int(values.isnan().sum()) == 3 + rewards.counts()["reward/vlm_judge/abstained"]


def test_a_server_that_is_down_stops_the_run_with_the_reason() -> None:
    rewards = table("http://127.0.0.1:9/v1", faults={"retries": 0})
    with pytest.raises(RewardError, match=r"failed on 2 of 2 .*more than its budget"):
        rewards.score_samples(samples(2))


def test_a_server_that_is_down_scores_nothing_where_the_budget_is_all() -> None:
    rewards = table("http://127.0.0.1:9/v1", faults={"retries": 0, "budget": 1})
    assert rewards.score_samples(samples(2))["thinking_reward"].isnan().all()


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_names_judge_address_and_status(chat, status: int) -> None:
    chat.faults = [status]
    with pytest.raises(JudgeError, match=rf"the judge tiny at http://.*/v1: HTTP {status}"):
        ask(judge_of(chat), questions(1))


@pytest.mark.parametrize("status", [429, 502])
def test_a_busy_server_is_told_apart_from_one_that_refuses(chat, status: int) -> None:
    chat.faults = [status]
    with pytest.raises(RewardUnavailable, match=f"HTTP {status} fault {status}"):
        ask(judge_of(chat), questions(1))


def test_a_response_of_another_form_is_an_error_and_no_score(chat) -> None:
    chat.garbled = True
    with pytest.raises(JudgeError, match="no chat completion"):
        ask(judge_of(chat), questions(1))


def test_requests_are_under_way_together_and_never_more_than_sixteen(chat) -> None:
    chat.hold_s = 0.1
    table(chat.url).score_samples(samples(20))
    assert 4 <= chat.most_busy <= 16


def test_the_key_comes_from_the_environment_and_is_sent(chat, monkeypatch) -> None:
    monkeypatch.setenv("TINY_KEY", "secret")
    ask(judge_of(chat, api_key_env="TINY_KEY"), questions(1))
    ask(judge_of(chat), questions(1))
    assert chat.keys == ["Bearer secret", None]


def test_a_missing_key_is_one_clear_error(monkeypatch) -> None:
    monkeypatch.delenv("TINY_KEY", raising=False)
    judge = EndpointJudge(url="http://127.0.0.1:9/v1", model="m", api_key_env="TINY_KEY")
    with pytest.raises(JudgeError, match="environment variable TINY_KEY is not set"):
        ask(judge, questions(1))


def test_an_unreadable_picture_costs_its_own_score_alone(chat, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = TextSample(Prompt("what?", images=(tmp_path / "broken.png",)), "x")
    rewards = table(chat.url, **YES)
    rewards.score_samples([broken, *samples(3)])
    assert rewards.counts()["reward/vlm_judge/error"] == 1
    assert len(chat.seen) == 3


def test_equal_questions_are_asked_once_and_failed_ones_again(chat) -> None:
    rewards = table(chat.url, faults={"retries": 0, "budget": 1})
    same = samples(1) * 3
    chat.faults = [503] * 3
    rewards.score_samples(same)
    assert len(chat.seen) == 3
    rewards.score_samples(same)
    rewards.score_samples(same)
    assert len(chat.seen) == 4


def test_what_the_judge_wrote_without_a_score_is_kept_in_the_log(chat, caplog) -> None:
    """The tiny model answers chest X-rays with a letter: that is no grade."""
    with caplog.at_level(logging.WARNING):
        found = table(chat.url).score_samples(samples(1))["thinking_reward"]
    assert found.isnan().all()
    assert "thinking_reward: no score in the judge's reply '<think>" in caplog.text


def test_an_address_without_http_is_named() -> None:
    with pytest.raises(ConfigError, match=r"url: expected http://host:port/v1, got 'localhost'"):
        parse(EndpointJudge, {"url": "localhost", "model": "m"})


def test_a_judge_of_another_kind_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"thinking_reward.judge.*'endpoint', 'local'"):
        RewardTable.parse({"thinking_reward": {"judge": {"kind": "oracle"}}})
