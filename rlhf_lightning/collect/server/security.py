"""Protection of the page: headers, CSRF tokens, sizes and rates."""

from __future__ import annotations

import hmac
import json
import time
from collections import OrderedDict
from hashlib import sha256
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "collect_session"
CSRF_HEADER = "x-csrf-token"
MAX_BODY = 1 << 20
HEADERS = {
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
        b"frame-ancestors 'none'; base-uri 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
}


class SecurityHeaders:
    """Add the security headers to every response, and forbid caches to keep anything but static files."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Before the app: a mount changes the scope.
        is_static = str(scope.get("path")).removeprefix(scope.get("root_path", "")).startswith(("/static/", "/questions/"))
        cache = b"no-cache" if is_static else b"no-store"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS.items(), (b"cache-control", cache)]
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class BodyLimit:
    """Answer 413 to a request whose body is larger than MAX_BODY, without reading more of it."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        is_large = not declared.isdigit() or int(declared) > self.limit
        while more and not is_large:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
            is_large = len(body) > self.limit
        if is_large:
            await refusal(413, f"the answer is larger than {self.limit:,} bytes")(scope, receive, send)
            return
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            return next(messages, None) or await receive()

        await self.app(scope, replay, send)


class RateLimit:
    """Allow each key `rate` requests a second, and bursts of `burst`.

    Args:
        capacity: most keys remembered; the oldest are forgotten.
    """

    def __init__(self, rate: float, burst: int, capacity: int = 10_000) -> None:
        self.rate, self.burst, self.capacity = rate, burst, capacity
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, key: str) -> bool:
        """True if one more request of this key is within the rate."""
        return self._level(key) + 1 <= self.burst

    def count(self, key: str) -> None:
        """Count one request."""
        self._levels[key] = (self._level(key) + 1, time.monotonic())
        self._levels.move_to_end(key)
        if len(self._levels) > self.capacity:
            self._levels.popitem(last=False)

    def _level(self, key: str) -> float:
        """Requests of the key that still count."""
        level, last = self._levels.get(key, (0.0, time.monotonic()))
        return max(0.0, level - (time.monotonic() - last) * self.rate)


def csrf_token(session: str) -> str:
    """The CSRF token of a session, derived from its cookie."""
    return hmac.new(session.encode(), b"csrf", sha256).hexdigest()


def is_same_origin(request: Request) -> bool:
    """True if the Origin, if the browser sends one, is the page's own host."""
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2] == request.headers.get("host")


def has_csrf_token(request: Request, session: str) -> bool:
    """True if a request that changes something comes from the page itself."""
    return is_same_origin(request) and hmac.compare_digest(request.headers.get(CSRF_HEADER, ""), csrf_token(session))


class AsciiResponse(JSONResponse):
    """JSON in ASCII, which also holds lone surrogates."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


def refusal(status: int, text: str) -> AsciiResponse:
    """An error for the page to show."""
    return AsciiResponse({"error": text}, status)
