"""A gateway of the tests' own, on a real socket: what commands say over HTTP is what is tested."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from tests.unit.cli.door import Asked, Door, Hw, Ran

from headwater.cli import main


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    own = Door()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            parts = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            answer = own.answer(
                Asked(
                    self.command,
                    unquote(parts.path),
                    dict(parse_qsl(parts.query)),
                    {name.lower(): value for name, value in self.headers.items()},
                    json.loads(data) if data else None,
                )
            )
            text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
            self.send_response(answer.status)
            self.send_header("content-type", answer.type)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = _answer  # noqa: N815 - http.server fixes these names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server fixes this name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        own.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HEADWATER_URL", own.url)
        yield own
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A working directory of its own, and nothing of the machine's environment."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    for name in ("HEADWATER_APP", "HEADWATER_TOKEN", "HEADWATER_TOKEN_FILE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hw(capsys: pytest.CaptureFixture[str]) -> Hw:
    """Run a command line in this process."""

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        status = main.main(arguments)
        said = capsys.readouterr()
        return Ran(status, said.out, said.err)

    return run
