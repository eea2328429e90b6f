"""A bare ASGI client: full control over scope and messages, no HTTP parser in between."""

import asyncio
from dataclasses import dataclass, field


@dataclass
class Answer:
    """What an application sent, and the exception that left it."""

    messages: list = field(default_factory=list)
    error: BaseException | None = None

    @property
    def status(self):
        return next(m["status"] for m in self.messages if m["type"] == "http.response.start")

    @property
    def headers(self):
        return [
            (bytes(k).decode("latin-1"), bytes(v).decode("latin-1"))
            for m in self.messages
            if m["type"] == "http.response.start"
            for k, v in m["headers"]
        ]

    def header(self, name):
        values = [value for key, value in self.headers if key == name]
        return values[0] if len(values) == 1 else values

    @property
    def body(self):
        return b"".join(m.get("body", b"") for m in self.messages if m["type"] == "http.response.body")


def http_scope(path="/", method="GET", headers=(), **changes):
    """Returns a scope as uvicorn makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"shop.example:8000"), *headers],
        "client": ("192.0.2.7", 40123),
        "server": ("127.0.0.1", 8000),
        **changes,
    }


EMPTY_BODY = ({"type": "http.request", "body": b"", "more_body": False},)


async def call(app, scope, incoming=EMPTY_BODY, send=None, leave_after=None):
    """Runs one request; exceptions are kept in the answer.

    The client waits for its answer, or leaves after `leave_after` seconds.
    """
    answer = Answer()
    messages = iter(incoming)

    async def receive():
        for message in messages:
            return message
        await asyncio.sleep(3600 if leave_after is None else leave_after)
        return {"type": "http.disconnect"}

    async def collect(message):
        answer.messages.append(message)

    try:
        await app(scope, receive, send or collect)
    except BaseException as error:
        answer.error = error
    return answer
