"""The store of blobs on a real directory and in memory: by what they are, apart by tenant, never silent."""

from __future__ import annotations

import http.server
import os
import pathlib
import threading

import pytest

from headwater.blobs.keeping import Keeping
from headwater.blobs.store import Store
from headwater.core.blobs import ref_of
from headwater.errors import BlobLostError, SettingsError, TransientError
from headwater.runtime.restoring import Inline

VALUE = b"a large value"
NAME = ref_of(VALUE).name


def aside(store: Store) -> None:
    store.set_aside("t", NAME)
    store.drop("t", NAME)


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Store:
    url = f"file://{tmp_path}/blobs" if request.param == "file" else "memory:///"
    return Store.at(url, namespace="ns")


def test_what_was_put_is_got(store: Store) -> None:
    """By its name, as often as one likes."""
    store.put("t1", VALUE)
    store.put("t1", VALUE)
    assert store.get("t1", NAME) == VALUE
    (blob,) = store.scan()
    assert (blob.tenant, blob.name, blob.size) == ("t1", NAME, len(VALUE))


@pytest.mark.parametrize("tenant", ["t1", "..", "a.b_c-d", "."])
def test_tenants_never_share_a_blob(store: Store, tenant: str) -> None:
    """One tenant's bytes can be deleted, and asked for by nobody else."""
    store.put(tenant, VALUE)
    store.put("other", VALUE)
    with pytest.raises(BlobLostError):
        store.get("t2", NAME)
    assert [blob.name for blob in store.scan(tenant)] == [NAME]
    assert sorted(blob.tenant for blob in store.scan()) == sorted([tenant, "other"])


def test_namespaces_share_nothing(tmp_path: pathlib.Path) -> None:
    """Two of them may use one bucket."""
    one = Store.at(f"file://{tmp_path}", namespace="one")
    two = Store.at(f"file://{tmp_path}", namespace="two")
    one.put("t", VALUE)
    two.put("t", b"another value")
    with pytest.raises(BlobLostError, match="is not in file://"):
        two.get("t", NAME)
    assert len([*two.scan()]) == 1


def test_an_empty_place_is_a_store_that_is_away(tmp_path: pathlib.Path) -> None:
    """A directory that is not mounted, or a bucket of another name, has lost nothing for good."""
    store = Store.at(f"file://{tmp_path}/blobs", namespace="ns")
    store.put("t", VALUE)
    (tmp_path / "blobs").rename(tmp_path / "unmounted")
    (tmp_path / "blobs").mkdir()
    with pytest.raises(TransientError, match="mount the directory, or name the right bucket"):
        store.get("t", NAME)
    (tmp_path / "blobs").rmdir()
    (tmp_path / "unmounted").rename(tmp_path / "blobs")
    assert store.get("t", NAME) == VALUE


def test_looking_at_an_empty_place_makes_no_store_of_it(tmp_path: pathlib.Path) -> None:
    """Whoever runs doctor before a directory is mounted has lost nothing for good either."""
    store = Store.at(f"file://{tmp_path}/blobs", namespace="ns")
    store.put("t", VALUE)
    assert store.probe()
    (tmp_path / "blobs").rename(tmp_path / "unmounted")
    assert not Store.at(f"file://{tmp_path}/blobs", namespace="ns").probe()
    with pytest.raises(TransientError, match="mount the directory"):
        store.get("t", NAME)


def test_a_changed_blob_is_a_lost_one(tmp_path: pathlib.Path) -> None:
    """Whoever reads compares the digest, so nobody is given other bytes."""
    store = Store.at(f"file://{tmp_path}", namespace="ns")
    store.put("t", VALUE)
    (file,) = tmp_path.rglob(NAME)
    file.write_bytes(b"another value")
    with pytest.raises(BlobLostError, match="was changed"):
        store.get("t", NAME)


def test_put_again_makes_young_again(store: Store) -> None:
    """That is what keeps a collector from what writers still use."""
    store.put("t", VALUE)
    first = store.look("t", NAME)
    assert first is not None
    while store.now_ms() <= first.put_ms:
        pass
    store.put("t", VALUE)
    again = store.look("t", NAME)
    assert again is not None
    assert again.put_ms > first.put_ms


def test_what_is_set_aside_is_still_found_until_it_is_deleted(store: Store) -> None:
    """A writer who comes between finds his value, and it can be brought back."""
    store.put("t", VALUE)
    aside(store)
    assert [*store.scan()] == []
    assert [blob.name for blob in store.scan(aside=True)] == [NAME]
    assert store.get("t", NAME) == VALUE
    store.bring_back("t", NAME)
    assert [blob.name for blob in store.scan()] == [NAME]
    assert store.look("t", NAME, aside=True) is None
    aside(store)
    store.delete("t", NAME)
    with pytest.raises(BlobLostError):
        store.get("t", NAME)
    aside(store)
    store.bring_back("t", NAME)
    store.delete("t", NAME)
    assert store.look("t", NAME) is None


def test_aside_it_is_young(tmp_path: pathlib.Path) -> None:
    """Its age begins again there, so that the next collection has time to find who refers to it."""
    store = Store.at(f"file://{tmp_path}", namespace="ns")
    store.put("t", VALUE)
    (file,) = tmp_path.rglob(NAME)
    os.utime(file, (1, 1))
    store.set_aside("t", NAME)
    aside = store.look("t", NAME, aside=True)
    assert aside is not None
    assert aside.put_ms > 1_000_000


def test_what_is_no_blob_is_passed_over(tmp_path: pathlib.Path) -> None:
    """Somebody's note in the bucket stays where it is."""
    store = Store.at(f"file://{tmp_path}", namespace="ns")
    store.put("t", VALUE)
    (tmp_path / "ns" / "live" / "readme.txt").write_text("hands off")
    assert [blob.name for blob in store.scan()] == [NAME]


@pytest.mark.parametrize("url", ["nonsense", "ftp://there/x", "http://there/x", "az://container/x"])
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    """At the start, with the setting's name and what to write."""
    with pytest.raises(SettingsError, match="HEADWATER_BLOBS__URL"):
        Store.at(url, namespace="ns")


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: pathlib.Path) -> None:
    """A file is no directory."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="HEADWATER_BLOBS__URL"):
        Store.at(f"file://{tmp_path}/file/below", namespace="ns")


def test_no_secret_is_said() -> None:
    """What a URL carries beside its place stays out of messages."""
    with pytest.raises(SettingsError) as refused:
        Store.at("ftp://user:secret@there/x?token=hidden", namespace="ns")
    assert "secret" not in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_a_store_that_is_away_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never taken for one that has lost something; where it is comes from S3's usual names."""
    asked: list[str] = []

    class Broken(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            asked.append(f"{self.command} {self.path}")
            self.send_response(503)
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_PUT = do_HEAD = _answer  # noqa: N815 - http.server fixes these names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        store = Store.at("s3://bucket/prefix", namespace="ns", timeout_s=0.2)
        where = f"/bucket/prefix/ns/live/t-t/{NAME[6:8]}/{NAME}"
        while not {"PUT /bucket/prefix/ns/mark", f"GET {where}"} <= {*asked}:  # it may be too busy
            for ask in (lambda: store.put("t", VALUE), lambda: store.get("t", NAME), store.now_ms):
                with pytest.raises(TransientError, match=r"s3://bucket/prefix does not (put|get)"):
                    ask()
        with pytest.raises(TransientError, match="does not list"):
            [*store.scan()]
        server.shutdown()
        thread.join()


def test_probe_leaves_nothing_behind(store: Store) -> None:
    """Doctor puts, gets, lists and deletes."""
    store.probe()
    assert [*store.scan()] == []
    assert [*store.scan(aside=True)] == []


def test_a_process_remembers_what_it_put_and_got_within_a_bound(tmp_path: pathlib.Path) -> None:
    """Each part of a conversation is fetched once a process; memory stays bounded."""
    store = Store.at(f"file://{tmp_path}", namespace="ns")
    keeping = Keeping(store, cache_bytes_max=25, executor=Inline())
    keeping.put("t", VALUE).result()
    for file in tmp_path.rglob(NAME):
        file.unlink()
    assert keeping.get("t", NAME).result() == VALUE
    with pytest.raises(BlobLostError):
        keeping.get("other", NAME).result()
    keeping.put("t", VALUE).result()
    keeping.put("t", b"another large value").result()
    for file in tmp_path.rglob(NAME):
        file.unlink()
    with pytest.raises(BlobLostError):
        keeping.get("t", NAME).result()


def test_a_value_is_put_however_well_it_is_known(tmp_path: pathlib.Path) -> None:
    """To be remembered is not to be young: the store is asked each time."""
    store = Store.at(f"file://{tmp_path}", namespace="ns")
    keeping = Keeping(store, executor=Inline())
    keeping.put("t", VALUE).result()
    for file in tmp_path.rglob(NAME):
        file.unlink()
    keeping.put("t", VALUE).result()
    assert store.get("t", NAME) == VALUE
