"""The score of a reward service: the reward runs elsewhere, in an environment of its own."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from httpx2 import AsyncClient, Client, Response, TransportError, codes
from pydantic import Field, field_validator

from mmrl.config import ConfigError
from mmrl.data.wire import TENSOR_TYPE
from mmrl.data.wire_samples import Encoding, png_request, tensor_request
from mmrl.registry import nearest_hint
from mmrl.reward import RewardConfig, RewardFailure, RewardUnavailable, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import Sample

ANSWER_S, RETRY_S = 10.0, 0.5
"""Longest wait for the service's word of itself, and the pause between two tries to connect."""


@rewards.register("remote")
class Remote(RewardConfig):
    """What `mmrl serve` says of a sample (docs/reward_service.md).

    A sample that the service cannot score raises, so that the fault policy counts the cause; one on
    which its scorer abstains is NaN. `png` rounds frames to 8 bits, `float32` sends them as they
    are.
    """

    usual_faults: ClassVar[dict[str, Any]] = {"timeout_s": 300.0}
    scorer: str
    url: str = "http://127.0.0.1:8800"
    token_env: str = "MMRL_REWARD_TOKEN"
    """The variable that holds the service's token."""
    encoding: Encoding = "png"
    start_timeout_s: float = Field(default=30.0, ge=0)
    """How long a run that begins waits for a service that is just being started."""
    unit: Literal["sample", "group"] = "sample"
    """What one request holds: the service joins requests itself, so only scorers that compare the
    samples of a prompt need `group`."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ConfigError(f"expected http://host:port, got {value!r}")
        return value

    @cached_property
    def client(self) -> AsyncClient:
        """One pool of connections; the time limit is the fault policy's."""
        client = AsyncClient(base_url=self.url, headers=self._headers(), timeout=None)
        weakref.finalize(self, _close, client, asyncio.get_running_loop())
        return client

    def check(self) -> None:
        """Whether the token is set, and the service answers to it and has the scorer."""
        response = self._capabilities()
        if response.status_code == codes.UNAUTHORIZED:
            raise ConfigError(
                f"{self.url} does not take the token in {self.token_env}", key="token_env"
            )
        if response.status_code != codes.OK or "scorers" not in response.text:
            raise ConfigError(
                f"{self.url} is no reward service: status {response.status_code} for /capabilities",
                key="url",
            )
        scorers = response.json()["scorers"]
        if self.scorer not in scorers:
            hint = nearest_hint(self.scorer, scorers)
            raise ConfigError(f"{self.url} has no scorer '{self.scorer}'{hint}", key="scorer")
        if scorers[self.scorer]["unit"] == "group" and self.unit != "group":
            raise ConfigError(
                f"'{self.scorer}' compares the samples of a prompt: expected group, got "
                f"{self.unit}",
                key="unit",
            )

    @judges_videos
    async def __call__(self, given: Sample | Sequence[Sample]) -> list[float | None]:
        samples = list(given) if isinstance(given, Sequence) else [given]
        answer = self._answer(await self._ask(samples))
        failed = next((s for s in answer["statuses"] if s not in ("ok", "abstained")), None)
        if failed == "timeout":
            raise TimeoutError(answer["reason"])
        if failed == "unavailable":
            raise RewardUnavailable(answer["reason"])
        if failed is not None:
            raise RewardFailure(answer["reason"])
        return answer["scores"]

    def _headers(self) -> dict[str, str]:
        token = os.environ.get(self.token_env, "")
        if not token:
            raise ConfigError(f"the variable {self.token_env} holds no token", key="token_env")
        return {"Authorization": f"Bearer {token}"}

    def _capabilities(self) -> Response:
        """What the service says of itself, asked until it answers or `start_timeout_s` is over."""
        deadline = time.monotonic() + self.start_timeout_s
        with Client(base_url=self.url, headers=self._headers(), timeout=ANSWER_S) as client:
            while True:
                try:
                    return client.get("/capabilities")
                except TransportError as error:
                    if time.monotonic() >= deadline:
                        raise ConfigError(
                            f"no reward service answers at {self.url} ({error}); does `mmrl serve` "
                            "run there?",
                            key="url",
                        ) from error
                time.sleep(RETRY_S)

    async def _ask(self, samples: Sequence[Sample]) -> Response:
        try:
            if self.encoding == "png":
                tree = await asyncio.to_thread(png_request, self.scorer, samples)
                return await self.client.post("/v1/score", json=tree)
            body = await asyncio.to_thread(tensor_request, self.scorer, samples)
            headers = {"Content-Type": TENSOR_TYPE}
            return await self.client.post("/v1/score/tensors", content=body, headers=headers)
        except TransportError as error:
            raise RewardUnavailable(f"{self.url}: {error!r}") from error

    def _answer(self, response: Response) -> dict[str, Any]:
        if response.status_code >= 500:
            raise RewardUnavailable(f"{self.url}: status {response.status_code}")
        if response.status_code != 200:
            raise RewardFailure(f"{self.url}: {response.status_code}: {response.text[:300]}")
        return response.json()


def _close(client: AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
    """Give the connections back on the loop that holds them."""
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(client.aclose(), loop)
