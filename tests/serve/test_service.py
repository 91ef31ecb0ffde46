"""A running service, asked over HTTP: right scores for good requests, a clear no for the others."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy, binary, integers
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from benchmarks.serving import TOKEN, Service
from mmrl.config import ConfigError
from mmrl.data.video import encode_webp, read_video
from mmrl.data.wire import pack
from mmrl.data.wire_samples import png_request
from mmrl.reward import FaultPolicy, RewardTable, Scorer, load_reward
from mmrl.types import Prompt, TextSample, VideoSample
from tests.serve.scorers import brightness

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def texts(*words: str) -> list[TextSample]:
    return [TextSample(Prompt("q", answer="a", metadata={"n": 1}), word) for word in words]


def scorer(service: Service, name: str, **fields: Any) -> Scorer:
    reward = load_reward("remote", scorer=name, url=service.url, **fields)
    return Scorer(name, reward, FaultPolicy(timeout_s=60, retries=0, backoff_s=0, budget=1))


def post(service: Service, body: Any, path: str = "/v1/score", **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    kind = {"Content-Type": "application/json"}
    return httpx2.post(service.url + path, content=content, headers={**kind, **HEADERS, **headers})


def body(**changes: Any) -> dict[str, Any]:
    return {**png_request("length", texts("one")), **changes}


def test_a_videos_score_is_that_of_the_same_reward_in_this_process(service: Service) -> None:
    generator = torch.Generator().manual_seed(0)
    videos = [
        VideoSample(Prompt("q"), torch.rand(frames, 3, 8, 8, generator=generator))
        for frames in (1, 2, 5)
    ]
    here = [brightness(video, gain=2.0) for video in videos]
    exact = scorer(service, "brightness", encoding="float32").score(videos).values
    rounded = scorer(service, "brightness").score(videos).values
    assert exact.tolist() == torch.tensor(here).tolist()
    torch.testing.assert_close(rounded, torch.tensor(here), atol=2 / 510, rtol=0)
    eight_bit = [VideoSample(v.prompt, (v.video * 255).round() / 255) for v in videos]
    here = [brightness(video, gain=2.0) for video in eight_bit]
    assert scorer(service, "brightness").score(eight_bit).values.tolist() == (
        torch.tensor(here).tolist()
    )


@pytest.mark.parametrize("encoding", ["png", "float32"])
@pytest.mark.parametrize("unit", ["sample", "group"])
def test_a_broken_video_has_no_score_there_as_it_has_none_here(
    service: Service, encoding: str, unit: str
) -> None:
    """A NaN pixel written as a PNG would be black, and black scores best where dark is good."""
    sound, broken = torch.full((3, 3, 8, 8), 0.5), torch.full((3, 3, 8, 8), 0.5)
    broken[1, 0, 0, 0] = torch.nan
    videos = [VideoSample(Prompt("q"), video) for video in (sound, broken, sound + torch.inf)]
    here = Scorer("smoothness", load_reward("smoothness"), FaultPolicy(budget=1)).score(videos)
    there = scorer(service, "smoothness", encoding=encoding, unit=unit).score(videos, 3)
    assert here.statuses == there.statuses == ("ok", "abstained", "abstained")
    torch.testing.assert_close(here.values, there.values, equal_nan=True)


@pytest.mark.parametrize("encoding", ["png", "float32"])
def test_a_served_vmaf_takes_the_prompts_video_and_opens_no_file_that_a_client_names(
    service: Service, encoding: str, tmp_path: Path
) -> None:
    path = tmp_path / "reference.webp"
    path.write_bytes(encode_webp(torch.rand(3, 3, 64, 64), fps=8))
    reference = read_video(path)
    given = VideoSample(Prompt("q", videos=(path,)), (reference + 0.1).clamp(0, 1))
    eight_bit = VideoSample(given.prompt, (given.video * 255).round() / 255)
    there = scorer(service, "vmaf", encoding=encoding)
    assert there.score([eight_bit]).values.item() == pytest.approx(
        load_reward("vmaf")([eight_bit]).item(), abs=1e-4
    )
    for name in (str(path), "cache:../../etc/passwd"):
        named = VideoSample(Prompt("q", metadata={"reference": name}), reference)
        found = there.score([named])
        assert found.statuses == ("error",) and "opens no file" in found.reasons[0]


def test_a_sample_in_trouble_costs_no_other_its_score(service: Service) -> None:
    """All requests are joined to one call; the one that hangs and the one that kills are found."""
    judge = scorer(service, "length")
    found = judge.score(texts("one", "skip", "bad", "four", "hang", "die", "fifth"))
    assert found.statuses == ("ok", "abstained", "error", "ok", "timeout", "unavailable", "ok")
    assert found.values[[0, 3, 6]].tolist() == [3, 4, 5]
    assert found.values[[1, 2, 4, 5]].isnan().all()
    assert judge.score(texts("again")).values.tolist() == [5]


def test_a_scorer_in_another_environment_gets_groups_and_their_pictures(
    service: Service, tmp_path: Path
) -> None:
    """Its module of value 100 is in that environment only; pictures travel by content."""
    path = tmp_path / "grey.png"
    Image.new("RGB", (4, 4), (77, 0, 0)).save(path)
    seen = Prompt("q", images=(path,))
    samples = [TextSample(seen, "aaa"), TextSample(seen, "a"), *texts("aa", "b")]
    for encoding in ("png", "float32"):
        judge = scorer(service, "elsewhere", unit="group", encoding=encoding)
        assert judge.score(samples, 2).values.tolist() == [178, 177, 101, 100]


def test_samples_of_many_clients_share_calls(service: Service) -> None:
    def count() -> float:
        text = httpx2.get(f"{service.url}/metrics", headers=HEADERS).text
        line = 'mmrl_call_samples_count{scorer="length"} '
        return float(text.split(line)[1].split()[0]) if line in text else 0.0

    before = count()
    with ThreadPoolExecutor(24) as clients:
        answers = list(clients.map(lambda _: post(service, body()).json(), range(24)))
    assert all(answer["scores"] == [3.0] for answer in answers)
    assert count() - before <= 12


def test_capabilities_name_the_scorers(service: Service) -> None:
    told = httpx2.get(f"{service.url}/capabilities", headers=HEADERS).json()
    assert told["version"] == 1
    assert told["scorers"]["elsewhere"]["unit"] == "group"
    assert told["scorers"]["length"]["summary"].startswith("Characters of the text")


def test_no_request_is_an_empty_answer(service: Service) -> None:
    assert post(service, body(samples=[])).json()["scores"] == []


@pytest.mark.parametrize("path", ["/v1/score", "/v1/score/tensors", "/metrics", "/capabilities"])
@pytest.mark.parametrize("token", ["", "Bearer wrong", TOKEN])
def test_without_the_token_there_is_no_answer(service: Service, path: str, token: str) -> None:
    assert post(service, body(), path, Authorization=token).status_code == 401


def png(pixels: Image.Image) -> str:
    sink = io.BytesIO()
    pixels.save(sink, "PNG")
    return base64.b64encode(sink.getvalue()).decode()


def video(*frames: str) -> dict[str, Any]:
    sample = {"kind": "video", "prompt": {"text": "q"}, "frames": list(frames)}
    return body(scorer="brightness", samples=[sample])


SMALL, LARGE = png(Image.new("RGB", (2, 2))), png(Image.new("RGB", (3, 2)))
BOMB = png(Image.new("1", (20_000, 20_000)))
TEXT = texts("x")[0]


@pytest.mark.parametrize(
    ("request_body", "status", "words"),
    [
        (video("/etc/passwd"), 400, "paths are not read"),
        (video("file:///etc/passwd"), 400, "paths are not read"),
        (video("../../../etc/passwd"), 400, "paths are not read"),
        (video(base64.b64encode(b"GIF89a").decode()), 400, "not a sound PNG"),
        (video(SMALL[:40]), 400, "PNG"),
        (video(SMALL, LARGE), 400, "frames differ in size"),
        (video(BOMB), 400, "pixels in one request|not a sound PNG"),
        (video(), 422, "at least 1 item"),
        (body(version=2), 422, "Input should be 1"),
        (body(scorer=7), 422, "valid string"),
        (body(extra=1), 422, "Extra inputs"),
        (body(samples=[{"kind": "text", "text": "x"}]), 422, "prompt"),
        (body(samples=[{"kind": "file", "path": "/etc/passwd"}]), 422, "kind"),
        ("{", 422, "JSON"),
        ("[" * 5000, 400, "parsing the body"),
        ('{"version": 1, "scorer": "\\ud800", "samples": []}', 404, "no scorer"),
        (b"\xff\xfe", 422, "JSON"),
        (body(scorer="nobody"), 404, "no scorer named 'nobody'"),
        (body(scorer="../length"), 404, "no scorer named"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(
    service: Service, request_body: Any, status: int, words: str
) -> None:
    found = post(service, request_body)
    assert found.status_code == status
    assert re.search(words, json.dumps(found.json()["detail"]))
    assert httpx2.get(f"{service.url}/health").json()["status"] == "ok"


def tensors(array: torch.Tensor, name: str = "0", video: str = "0") -> bytes:
    sample = {"kind": "video", "prompt": {"text": "q"}, "fps": 8.0, "video": video}
    header = {"version": 1, "scorer": "brightness", "samples": [sample]}
    return pack(header, {name: array.numpy()})


@pytest.mark.parametrize(
    ("request_body", "status", "words"),
    [
        (b"", 400, "not a safetensors body"),
        (b"\x80\x04\x95 pickle", 400, "not a safetensors body"),
        (b"\xff" * 64, 400, "safetensors"),
        (tensors(torch.zeros(2, 3, 4, 4))[:-5], 400, "not a sound safetensors body"),
        (tensors(torch.zeros(2, 4, 4, 3)), 400, "expected"),
        (tensors(torch.zeros(2, 3, 4, 4).double()), 400, "expected"),
        (tensors(torch.full((2, 3, 4, 4), torch.nan)), 400, "outside"),
        (tensors(torch.full((2, 3, 4, 4), 255.0)), 400, "outside"),
        (tensors(torch.zeros(2, 3, 4, 4), video="/etc/passwd"), 400, "no tensor named"),
        (pack({"version": 1}, {}), 422, "scorer"),
    ],
)
def test_a_bad_tensor_body_is_told_what_is_wrong(
    service: Service, request_body: bytes, status: int, words: str
) -> None:
    found = post(service, request_body, "/v1/score/tensors")
    assert (found.status_code, words in json.dumps(found.json())) == (status, True), found.text


def test_a_tensors_name_is_never_a_path(service: Service, tmp_path: Path) -> None:
    name = f"{tmp_path}/escaped"
    sample = {**png_request("elsewhere", [TEXT])["samples"][0]}
    sample["prompt"] = {"text": "q", "images": [name]}
    header = {"version": 1, "scorer": "elsewhere", "samples": [sample, sample]}
    picture = torch.full((2, 2, 3), 9, dtype=torch.uint8).numpy()
    answer = post(service, pack(header, {name: picture}), "/v1/score/tensors")
    assert answer.json()["scores"] == [109, 110]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_past_the_limit_is_refused_and_not_kept(service: Service, chunked: bool) -> None:
    large = b" " * (2**20 + 1)
    content = iter([large[: 2**19], large[2**19 :]]) if chunked else large
    found = httpx2.post(f"{service.url}/v1/score", content=content, headers=HEADERS)
    assert found.status_code == 413
    assert post(service, body()).json()["scores"] == [3.0]


def test_more_samples_than_may_ever_wait_are_413_and_not_503(service: Service) -> None:
    sample = png_request("length", [TEXT])["samples"][0]
    found = post(service, body(samples=[sample] * 501))
    assert found.status_code == 413 and "at most 500" in found.json()["detail"]
    assert post(service, body()).json()["scores"] == [3.0]


def test_a_fuzzed_request_gets_an_answer_that_the_schema_names(service: Service) -> None:
    """Some hundred right and wrong requests, drawn from the service's own OpenAPI description."""
    schema = schemathesis.openapi.from_url(
        f"{service.url}/openapi.json", headers=HEADERS, config=SchemathesisConfig()
    )

    def call(case: Any) -> Any:
        return case.call(headers=HEADERS)

    seen = sum(
        fuzz(
            operation.ok().as_strategy(generation_mode=mode),
            lambda case: case.call(headers=HEADERS),
        )
        for operation in schema.include(path="/v1/score").get_all_operations()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    )
    good = tensors(torch.zeros(1, 3, 2, 2))
    bodies = binary(max_size=200) | integers(0, len(good)).map(lambda cut: good[:cut] + b"x")
    seen += fuzz(bodies, lambda data: post(service, data, "/v1/score/tensors"))
    assert seen >= 100
    assert httpx2.get(f"{service.url}/health").json()["status"] == "ok"
    assert post(service, body()).json()["scores"] == [3.0]


def fuzz(cases: SearchStrategy, send: Callable[[Any], Any]) -> int:
    """How many requests were sent; each answer is one that a client can act on."""
    seen = []

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def run(case: Any) -> None:
        response = send(case)
        seen.append(response.status_code)
        assert response.status_code in (200, 400, 404, 405, 413, 422), response.text

    run()
    return len(seen)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scorer": "lenght"}, r"rewards\.a\.scorer: .* did you mean 'length'"),
        ({"token_env": "OTHER"}, r"rewards\.a\.token_env: .* does not take the token in OTHER"),
        ({"scorer": "elsewhere"}, r"rewards\.a\.unit: .* expected group, got sample"),
    ],
)
def test_a_wrong_remote_is_found_before_the_first_rollout(
    service: Service, fields: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER", "wrong")
    entry = {"reward": "remote", "scorer": "length", "url": service.url}
    RewardTable.parse({"a": entry}).check()
    with pytest.raises(ConfigError, match=message):
        RewardTable.parse({"a": {**entry, **fields}}).check()
