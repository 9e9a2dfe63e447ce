"""Backing services: what settings name that a process leans on, besides its log."""

from __future__ import annotations

import concurrent.futures

from headwater.blobs.keeping import Keeping
from headwater.blobs.store import Store
from headwater.contracts import registry
from headwater.runtime.restoring import Local
from headwater.runtime.storing import RocksStore
from headwater.settings import BlobStore, Registry, Settings


def registry_of(settings: Registry) -> registry.Registry | None:
    """Return the schema registry that the settings name, if they do."""
    if not settings.url:
        return None
    return registry.connect(
        settings.url,
        username=settings.username,
        password=settings.password.get_secret_value(),
        ca_file=settings.ca_file,
    )


def blobs_of(settings: BlobStore, *, namespace: str) -> Keeping | None:
    """Return the store of blobs that the settings name, if they do.

    Raises:
        SettingsError: They name none that there could be.
    """
    if not settings.url:
        return None
    return Keeping(
        Store.at(settings.url, namespace=namespace, timeout_s=settings.timeout_s),
        inline_bytes_max=settings.inline_bytes_max,
        bytes_max=settings.bytes_max,
        cache_bytes_max=settings.cache_bytes_max,
        held_bytes_max=settings.held_bytes_max,
        executor=concurrent.futures.ThreadPoolExecutor(
            settings.threads_max, thread_name_prefix="blobs"
        ),
    )


def local_of(settings: Settings) -> Local | None:
    """Return where rows are kept beside the process, if the settings name a place."""
    given = settings.store
    if given.path is None:
        return None
    store = RocksStore(given.path / settings.instance, bytes_max=given.bytes_max)
    return Local(store=store, follow_s=given.follow_s, age_s_max=given.age_s_max)
