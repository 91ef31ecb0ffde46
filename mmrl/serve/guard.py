"""The door of the service: no token, no entry; no body that is too large is ever held whole."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mmrl.serve.metrics import ServeMetrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
OPEN_PATHS = ("/health",)
"""What anyone may ask, as load balancers do."""


class Guard:
    """ASGI middleware: 401 before anything is read, 413 as soon as a body passes the limit."""

    def __init__(self, app: App, token: str, max_body: int, metrics: ServeMetrics) -> None:
        self.app = app
        self.expected = f"Bearer {token}".encode()
        self.max_body = max_body
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = self._counted(send)
        headers = dict(scope["headers"])
        given = headers.get(b"authorization", b"")
        if scope["path"] not in OPEN_PATHS and not hmac.compare_digest(given, self.expected):
            await _refuse(send, 401, "no valid token: send `Authorization: Bearer TOKEN`")
            return
        body = await self._body(headers, receive)
        if body is None:
            await _refuse(send, 413, f"the body is larger than {self.max_body} bytes")
            return
        await self.app(scope, _replay(body, receive), send)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """The whole body, or None where it is too large; it is not read past the limit."""
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_body:
            return None
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > self.max_body:
                return None
        return b"".join(parts)

    def _counted(self, send: Send) -> Send:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.responded(message["status"])
            await send(message)

        return counting


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand out the body once, then whatever the connection says."""
    told = False

    async def replaying() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replaying


async def _refuse(send: Send, status: int, detail: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    body = json.dumps({"detail": detail}).encode()
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
