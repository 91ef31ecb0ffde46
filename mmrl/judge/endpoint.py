"""A judge behind an OpenAI-style chat endpoint (vLLM, SGLang, TGI, a hosted model)."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import ssl
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import httpx2
from PIL import Image
from pydantic import Field, field_validator

from mmrl.config import Config, ConfigError
from mmrl.data.images import load_image
from mmrl.judge.base import TOP_TOKENS, Question, Reply
from mmrl.reward.base import RewardUnavailable, Unit

TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500


class JudgeError(RuntimeError):
    """A request that no waiting will help: a wrong key, model or address, a response of no use."""


class EndpointJudge(Config):
    """A judge that is asked over HTTP at temperature 0, pictures as PNG data URLs.

    Waiting between tries, their number and the limit of what may fail are the reward's `faults`.
    """

    kind: Literal["endpoint"] = "endpoint"
    url: str
    """Up to and with the version, such as http://localhost:8000/v1."""
    model: str
    api_key_env: str | None = None
    """The environment variable that holds the key; null: no key is sent."""
    max_new_tokens: int = Field(default=256, ge=1)

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ConfigError(f"expected http://host:port/v1, got {value!r}")
        return value.rstrip("/")

    def check(self) -> None:
        """ConfigError unless the variable of the key is set; nobody is asked."""
        if self.api_key_env is not None and not os.environ.get(self.api_key_env):
            raise ConfigError(
                f"the environment variable {self.api_key_env} is not set", key="api_key_env"
            )

    @property
    def unit(self) -> Unit:
        """Questions go out one by one, many at once."""
        return "sample"

    @property
    def usual_faults(self) -> dict[str, Any]:
        """SophiaVL-R1's limit for one answer, and its patience."""
        return {"timeout_s": 60.0, "retries": 4}

    @cached_property
    def certificates(self) -> ssl.SSLContext:
        """Read once: every request has a connection of its own, tied to no event loop."""
        return ssl.create_default_context()

    async def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply a question; RewardUnavailable for 429 and 5xx, else JudgeError."""
        return list(await asyncio.gather(*map(self._ask_one, questions)))

    async def _ask_one(self, question: Question) -> Reply:
        body = await asyncio.to_thread(self._body, question)
        url = f"{self.url}/chat/completions"
        async with httpx2.AsyncClient(timeout=None, verify=self.certificates) as client:
            response = await client.post(url, json=body, headers=self._headers())
        if response.status_code != httpx2.codes.OK:
            said = " ".join(response.text.split())[:200]
            told = f"the judge {self.model} at {self.url}: HTTP {response.status_code} {said}"
            busy = response.status_code == TOO_MANY_REQUESTS or response.status_code >= SERVER_ERROR
            raise RewardUnavailable(told) if busy else JudgeError(told)
        return read_response(response)

    def _headers(self) -> dict[str, str]:
        if self.api_key_env is None:
            return {}
        key = os.environ.get(self.api_key_env)
        if not key:
            raise JudgeError(
                f"judge.api_key_env: the environment variable {self.api_key_env} is not set"
            )
        return {"Authorization": f"Bearer {key}"}

    def _body(self, question: Question) -> dict[str, Any]:
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": data_url(image)}}
            for image in question.images
        ]
        content.append({"type": "text", "text": question.text})
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0.0,
            "seed": 0,
            "max_tokens": self.max_new_tokens,
        }
        asked = {"logprobs": True, "top_logprobs": TOP_TOKENS} if question.first_token else {}
        return body | asked


def data_url(image: Path | Image.Image) -> str:
    """The picture as a base64 PNG, which loses nothing."""
    buffer = io.BytesIO()
    (load_image(image) if isinstance(image, Path) else image).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def read_response(response: httpx2.Response) -> Reply:
    """Text and first token's log-probs of the first choice; JudgeError for another form."""
    try:
        choice = response.json()["choices"][0]
        text = choice["message"]["content"] or ""
        tokens = (choice.get("logprobs") or {}).get("content") or [{}]
        likeliest = tokens[0].get("top_logprobs") or ()
        return Reply(str(text), {str(one["token"]): float(one["logprob"]) for one in likeliest})
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise JudgeError(
            f"a response that is no chat completion: {response.text[:200]!r}"
        ) from error
