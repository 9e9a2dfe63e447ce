"""`headwater blobs`, as far as it needs no cluster."""

from __future__ import annotations

import json
import pathlib

import pytest
from tests.unit.cli.door import Hw

from headwater.backing import blobs_of
from headwater.blobs.store import Store
from headwater.cli import doctor
from headwater.core.blobs import ref_of
from headwater.settings import Settings

VALUE = b"a large value" * 100


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Store:
    """A store in a directory, which the settings name."""
    url = f"file://{tmp_path}/blobs"
    monkeypatch.setenv("HEADWATER_BLOBS__URL", url)
    monkeypatch.setenv("HEADWATER_NAMESPACE", "ns")
    return Store.at(url, namespace="ns")


def test_blobs_are_listed_and_counted_by_tenant(hw: Hw, store: Store) -> None:
    """What is live and what lies aside, in tables and as JSON."""
    assert "holds no such blob" in hw("blobs", "list").err
    assert "holds no such blob" in hw("blobs", "stat").err
    store.put("bank", VALUE)
    store.put("shop", VALUE)
    store.put("shop", b"unused")
    store.set_aside("shop", ref_of(b"unused").name)
    store.drop("shop", ref_of(b"unused").name)
    listed = hw("blobs", "list", "--tenant", "bank")
    assert ref_of(VALUE).name in listed.out
    assert "1.3 KiB" in listed.out
    assert len(json.loads(hw("blobs", "list", "--output", "json").out)) == 2
    aside = json.loads(hw("blobs", "list", "--aside", "--output", "json").out)
    assert [(blob["tenant"], blob["size"]) for blob in aside] == [("shop", 6)]
    assert "--limit shows more" in hw("blobs", "list", "--limit", "1").err
    counts = json.loads(hw("blobs", "stat", "--output", "json").out)
    assert counts == [
        {"tenant": "bank", "aside": False, "blobs": 1, "bytes": 1300},
        {"tenant": "shop", "aside": False, "blobs": 1, "bytes": 1300},
        {"tenant": "shop", "aside": True, "blobs": 1, "bytes": 6},
    ]
    assert "aside" in hw("blobs", "stat").out


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("age", "says"),
    [("7d", "below HEADWATER_BLOBS__KEEP_S"), ("a week", "write a number and d, h")],
)
def test_an_age_that_could_lose_something_is_refused(hw: Hw, age: str, says: str) -> None:
    """Before anything is asked of a cluster."""
    ran = hw("blobs", "collect", "--older-than", age)
    assert ran.status == 2
    assert says in ran.err


def test_without_a_store_the_setting_is_named(hw: Hw) -> None:
    """One line that says what to do."""
    ran = hw("blobs", "stat")
    assert ran.status == 1
    assert "HEADWATER_BLOBS__URL" in ran.err


@pytest.mark.parametrize(
    ("url", "state", "says"),
    [
        ("", "ok", "HEADWATER_BLOBS__URL names a store"),
        ("file://{}/blobs", "ok", "puts, gets, lists and deletes"),
        ("memory:///", "warn", "forgets at exit"),
        ("ftp://there/x", "FAIL", "begins with none of"),
    ],
)
def test_doctor_asks_the_store(tmp_path: pathlib.Path, url: str, state: str, says: str) -> None:
    """Whether it works is known before a value needs it."""
    settings = Settings.of({"HEADWATER_BLOBS__URL": url.format(tmp_path)} if url else {})
    check = doctor._blobs(settings, None)
    assert check.state == state
    assert says in check.says


def test_a_process_uses_the_store_that_is_set(tmp_path: pathlib.Path) -> None:
    """With the bounds that are set, in the namespace that is its own."""
    assert blobs_of(Settings.of({}).blobs, namespace="ns") is None
    given = {
        "HEADWATER_BLOBS__URL": f"file://{tmp_path}",
        "HEADWATER_BLOBS__INLINE_BYTES_MAX": "2048",
    }
    keeping = blobs_of(Settings.of(given).blobs, namespace="ns")
    assert keeping is not None
    keeping.put("t", VALUE).result()
    assert keeping.inline_bytes_max == 2048
    assert Store.at(f"file://{tmp_path}", namespace="ns").get("t", ref_of(VALUE).name) == VALUE
