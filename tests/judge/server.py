"""An OpenAI-style chat server in this process: a real tiny VLM behind real HTTP, with faults."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI, Request, Response
from PIL import Image

from mmrl.judge.base import Question, Reply
from mmrl.judge.local import LocalJudge

MODEL = "assets/tiny-qwen2_5_vl"


@dataclass
class ChatServer:
    """Answers with `judge`; `faults` are statuses given before that, 0 is silence."""

    judge: LocalJudge
    faults: list[int] = field(default_factory=list)
    hold_s: float = 0.0
    """Seconds every request is held, so that several are under way at once."""
    garbled: bool = False
    seen: list[dict] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    url: str = ""

    async def answer(self, request: Request) -> Response:
        """One completion, or the next fault."""
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            body = await request.json()
            self.seen.append(body)
            self.keys.append(request.headers.get("authorization"))
            await asyncio.sleep(self.hold_s)
            if self.faults:
                return await self._fail(self.faults.pop(0))
            if self.garbled:
                return Response('{"choices": []}', media_type="application/json")
            [reply] = await self.judge.ask([question_of(body)])
            return Response(completion(reply), media_type="application/json")
        finally:
            self.busy -= 1

    async def _fail(self, status: int) -> Response:
        if status == 0:
            await asyncio.sleep(30)
        return Response(f"fault {status}", status_code=status)


def question_of(body: dict) -> Question:
    """The user turn of a request, its pictures decoded."""
    parts = body["messages"][0]["content"]
    images = []
    for part in parts:
        if part["type"] == "image_url":
            head, _, data = part["image_url"]["url"].partition(",")
            assert head == "data:image/png;base64"
            images.append(Image.open(io.BytesIO(base64.b64decode(data))))
    return Question(parts[-1]["text"], tuple(images), bool(body.get("logprobs")))


def completion(reply: Reply) -> bytes:
    """The response's JSON as OpenAI's interface has it."""
    top = [{"token": t, "logprob": v, "bytes": None} for t, v in reply.first_token.items()]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": reply.text},
        "finish_reason": "stop",
        "logprobs": {"content": [{**top[0], "top_logprobs": top}]} if top else None,
    }
    return json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


@contextmanager
def serving(chat: ChatServer) -> Iterator[ChatServer]:
    """The server on a free port of this machine while the block runs."""
    app = FastAPI()
    app.add_api_route("/v1/chat/completions", chat.answer, methods=["POST"])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    chat.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield chat
    finally:
        server.force_exit = server.should_exit = True
        thread.join(timeout=10)
