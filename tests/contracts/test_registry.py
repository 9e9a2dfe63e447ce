"""A schema registry over HTTP, on a real socket, and the one in memory."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import fastavro
import pytest

from headwater.contracts import frames, parsing, registry
from headwater.contracts.catalog import Schemas
from headwater.contracts.derive import shape_of
from headwater.errors import PoisonError, SettingsError, TransientError

_SCHEMA = {"type": "record", "name": "Claim", "fields": [{"name": "id", "type": "string"}]}


class Server:
    """A registry's HTTP interface, as far as anybody here uses it."""

    def __init__(self) -> None:
        self.ids: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, list[int]] = {}
        self.broken: int = 0
        self.seen: list[tuple[str, str]] = []
        self.credentials = ""
        self.text = ""

    def answer(self, method: str, path: str, body: Any, credentials: str) -> tuple[int, Any]:
        """Return status and body."""
        self.seen.append((method, path))
        if self.broken:
            return self.broken, {"error_code": self.broken, "message": "broken by the test"}
        if self.credentials and credentials != self.credentials:
            return 401, {"message": "who are you?"}
        parts = path.strip("/").split("/")
        match method, parts:
            case "GET", ["root", "schemas", "ids", number] if int(number) in self.ids:
                return 200, self.ids[int(number)]
            case "GET", ["root", "subjects", subject, "versions", "latest"] if (
                subject in self.subjects
            ):
                number = self.subjects[subject][-1]
                return 200, {"subject": subject, "id": number, **self.ids[number]}
            case "POST", ["root", "subjects", subject, "versions"]:
                if "refuse" in subject:
                    return 409, {"error_code": 409, "message": "incompatible"}
                known = [
                    number for number, of in self.ids.items() if of["schema"] == body["schema"]
                ]
                number = known[0] if known else len(self.ids) + 1
                self.ids[number] = {"schema": body["schema"]}
                self.subjects.setdefault(subject, []).append(number)
                return 200, {"id": number}
        return 404, {"error_code": 40403, "message": "not found"}


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    own = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            data = self.rfile.read(length)
            status, body = own.answer(
                self.command,
                self.path,
                json.loads(data) if data else None,
                self.headers.get("authorization", ""),
            )
            text = (own.text or json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("content-type", "application/vnd.schemaregistry.v1+json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _answer  # noqa: N815 - http.server fixes these names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server fixes this name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield own, f"http://127.0.0.1:{running.server_port}/root"
        running.shutdown()
        thread.join()


@pytest.fixture(params=["memory", "http"])
def either(request: pytest.FixtureRequest) -> Iterator[registry.Registry]:
    """Both registries keep the same promises."""
    if request.param == "memory":
        with registry.connect("mock://") as found:
            yield found
        return
    _, url = request.getfixturevalue("server")
    found = registry.connect(url)
    with found:
        yield found


def test_what_is_registered_is_found_by_id_and_by_subject(either: registry.Registry) -> None:
    """The same schema has the same id, whatever subjects it stands under."""
    number = either.register("hw.cmd.triage.v1-value", _SCHEMA)
    assert json.loads(either.by_id(number)) == _SCHEMA
    assert either.register("hw.cmd.triage.v1-value", _SCHEMA) == number
    assert either.register("other", _SCHEMA) == number
    newest = either.latest("hw.cmd.triage.v1-value")
    assert newest is not None
    assert json.loads(newest) == _SCHEMA
    assert either.latest("nobody's") is None


def test_an_id_that_an_up_to_date_registry_does_not_know_is_poison(
    either: registry.Registry,
) -> None:
    """Quarantined as `unknown-schema`, to be replayed when it does."""
    with pytest.raises(PoisonError) as refused:
        either.by_id(77)
    assert refused.value.code == "unknown-schema"


def test_a_producers_wire_format_is_read_through_the_registry(either: registry.Registry) -> None:
    """Magic byte, id, datum of a writer's schema that is older than ours: resolved to the agent's type."""
    number = either.register("s", _SCHEMA)
    schemas = Schemas()
    schemas.connect(either)
    datum = frames.write(fastavro.parse_schema(_SCHEMA), {"id": "c-17"})
    reader = {
        **_SCHEMA,
        "fields": [*_SCHEMA["fields"], {"name": "note", "type": "string", "default": "none"}],
    }
    parsed = parsing.parse(reader)
    framed = b"\x00" + number.to_bytes(4, "big") + datum
    found = frames.read(framed, parsed, parsing.fingerprint(reader), schemas)
    assert found == {"id": "c-17", "note": "none"}


def test_a_producers_wire_format_becomes_ours(either: registry.Registry) -> None:
    """What names its schema by a registry's id can be kept and read where there is no registry."""
    number = either.register("s", _SCHEMA)
    schemas = Schemas(either)
    datum = frames.write(fastavro.parse_schema(_SCHEMA), {"id": "c-17"})
    single = frames.single(b"\x00" + number.to_bytes(4, "big") + datum, schemas)
    own = parsing.fingerprint(_SCHEMA)
    assert single == frames.SINGLE + own + datum
    assert frames.single(single, schemas) == single
    assert schemas.knows(own)
    alone = Schemas()
    assert not alone.knows(own)
    assert alone.add(schemas.schema(own)) == own
    assert frames.read(single, parsing.parse(_SCHEMA), b"", alone) == {"id": "c-17"}


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_registry_that_stumbles_is_away(server: tuple[Server, str], status: int) -> None:
    """Away pauses the partition; nothing is quarantined for it."""
    own, url = server
    own.broken = status
    with registry.connect(url) as found, pytest.raises(TransientError, match="broken by the test"):
        found.by_id(1)


def test_a_registry_that_cannot_be_reached_is_away() -> None:
    """As above, without anybody there."""
    with (
        registry.connect("http://127.0.0.1:9") as found,
        pytest.raises(
            TransientError, match=r"registry at http://127.0.0.1:9 .*REGISTRY__URL\) is away"
        ),
    ):
        found.by_id(1)


def test_credentials_are_sent_and_their_refusal_is_a_setting(server: tuple[Server, str]) -> None:
    """Wrong credentials never become right by waiting: the start stops and names the variable."""
    own, url = server
    own.credentials = "Basic " + base64.b64encode(b"ana:secret").decode()
    with registry.connect(url, username="ana", password="secret") as found:  # noqa: S106 - the test's own
        assert found.register("s", _SCHEMA) == 1
    with (
        registry.connect(url) as found,
        pytest.raises(SettingsError, match="HEADWATER_REGISTRY__USERNAME"),
    ):
        found.by_id(1)


def test_a_schema_that_the_registry_refuses_is_a_setting(server: tuple[Server, str]) -> None:
    """Its rules are somebody's decision; its words are passed on."""
    _, url = server
    with registry.connect(url) as found, pytest.raises(SettingsError, match="incompatible"):
        found.register("refuse-me", _SCHEMA)


def test_a_foreign_kind_of_schema_is_unknown(server: tuple[Server, str]) -> None:
    """Protobuf under an id that an Avro record names cannot be read, and waiting does not help."""
    own, url = server
    own.ids[1] = {"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"}
    with registry.connect(url) as found, pytest.raises(PoisonError, match="PROTOBUF"):
        found.by_id(1)


def test_an_address_that_is_none_is_named() -> None:
    """A setting that cannot work names its variable."""
    with pytest.raises(SettingsError, match="HEADWATER_REGISTRY__URL 'registry:8081'"):
        registry.connect("registry:8081")


def test_a_schema_is_asked_for_once(server: tuple[Server, str]) -> None:
    """A producer's thousand records cost one question."""
    own, url = server
    with registry.connect(url) as found:
        number = found.register("s", shape_of(str, name="Text").schema)
        schemas = Schemas(found)
        own.seen.clear()
        for _ in range(10):
            schemas.by_id(number)
    assert len(own.seen) == 1


def test_something_else_at_the_address_is_said(server: tuple[Server, str]) -> None:
    """A path that is no registry's, and an answer that is no JSON."""
    own, url = server
    with (
        registry.connect(url.replace("/root", "/elsewhere")) as found,
        pytest.raises(SettingsError, match="is that a schema registry"),
    ):
        found.register("s", _SCHEMA)
    own.ids[1] = {"schema": "{}"}
    own.text = "<html>"
    with registry.connect(url) as found, pytest.raises(TransientError, match="no JSON"):
        found.by_id(1)
    own.broken = 500
    with registry.connect(url) as found, pytest.raises(TransientError, match="answers 500"):
        found.by_id(1)


def test_a_registry_in_memory_is_shared_by_its_name() -> None:
    """A producer and an app of one process meet at `mock://name`; `mock://` alone is nobody else's."""
    with registry.connect("mock://shared") as one:
        number = one.register("s", _SCHEMA)
    assert json.loads(registry.connect("mock://shared").by_id(number)) == _SCHEMA
    for other in ("mock://", "mock://other"):
        with pytest.raises(PoisonError):
            registry.connect(other).by_id(number)
