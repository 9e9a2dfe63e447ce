"""A provider on a loopback socket that speaks OpenAI's chat completions, and does as told."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def completion(text: str | None = "hello", *, arguments: Any = None, usage: Any = USAGE) -> bytes:
    """Return a completion: text, or a call of the output tool."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if arguments is not None:
        call = {"name": "final_result", "arguments": json.dumps(arguments)}
        message["tool_calls"] = [{"id": "c1", "type": "function", "function": call}]
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-5-mini",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    return json.dumps(body | ({"usage": usage} if usage else {})).encode()


def stream(*pieces: str, whole: bool = True) -> bytes:
    """Return the server-sent events of a streamed completion; not whole: it breaks off."""

    def event(choices: list[Any], **more: Any) -> bytes:
        body = {"id": "x", "object": "chat.completion.chunk", "created": 1_700_000_000}
        body |= {"model": "gpt-5-mini", "choices": choices, **more}
        return b"data: " + json.dumps(body).encode() + b"\n\n"

    out = b"".join(
        event(
            [{"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}]
        )
        for piece in pieces
    )
    if not whole:
        return out
    out += event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    return out + event([], usage=USAGE) + b"data: [DONE]\n\n"


class Provider:
    """Answers what it was told to, in order, the last again and again; records what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []

    def will(self, body: bytes, *, status: int = 200, **headers: str) -> None:
        """Answer this next; a `Content_Length` longer than the body is a connection that breaks."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        kind = "text/event-stream" if body.startswith(b"data:") else "application/json"
        self.answers.append((status, {"Content-Type": kind, **named}, body))


@contextlib.contextmanager
def running() -> Iterator[Provider]:
    """Run a provider on a free port."""
    provider = Provider()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            provider.asked.append(json.loads(self.rfile.read(size)) | {"path": self.path})
            status, headers, body = provider.answers[0]
            if len(provider.answers) > 1:
                provider.answers.pop(0)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    provider.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
