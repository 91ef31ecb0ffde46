"""The score of a reward service: the reward runs elsewhere, in an environment of its own."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from httpx2 import AsyncClient, Response, TransportError

from mmrl.config import ConfigError
from mmrl.data.wire import TENSOR_TYPE
from mmrl.data.wire_samples import Encoding, png_request, tensor_request
from mmrl.reward import RewardConfig, RewardFailure, RewardUnavailable, rewards
from mmrl.reward.screen import judges_videos
from mmrl.types import Sample


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
    unit: Literal["sample", "group"] = "sample"
    """What one request holds: the service joins requests itself, so only scorers that compare the
    samples of a prompt need `group`."""

    @cached_property
    def client(self) -> AsyncClient:
        """One pool of connections; the time limit is the fault policy's."""
        token = os.environ.get(self.token_env, "")
        if not token:
            raise ConfigError(f"the variable {self.token_env} holds no token", key="token_env")
        client = AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=None
        )
        weakref.finalize(self, _close, client, asyncio.get_running_loop())
        return client

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
