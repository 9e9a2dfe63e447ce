"""headwater: fleets of LLM agents on Apache Kafka, for people who must prove what their agents did."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headwater.contracts.derive import Json
from headwater.contracts.scalars import Scale
from headwater.core.judge import Allow, AskPerson, Deny
from headwater.core.prices import Price, usd_per_million
from headwater.errors import (
    AgentError,
    BudgetExceeded,
    CallError,
    DeadlineExceeded,
    Denied,
    HeadwaterError,
    ModelError,
    NotDone,
    PoisonError,
    SettingsError,
    ToolError,
    ToolTimeout,
    TransientError,
)
from headwater.sdk.app import App
from headwater.sdk.context import Approval, Context
from headwater.sdk.types import Budget, Call, ModelReply

if TYPE_CHECKING:
    from headwater import testing
    from headwater.client import Client
    from headwater.settings import Settings

__all__ = [
    "AgentError",
    "Allow",
    "App",
    "Approval",
    "AskPerson",
    "Budget",
    "BudgetExceeded",
    "Call",
    "CallError",
    "Client",
    "Context",
    "DeadlineExceeded",
    "Denied",
    "Deny",
    "HeadwaterError",
    "Json",
    "ModelError",
    "ModelReply",
    "NotDone",
    "PoisonError",
    "Price",
    "Scale",
    "Settings",
    "SettingsError",
    "ToolError",
    "ToolTimeout",
    "TransientError",
    "testing",
    "usd_per_million",
]

_LATE = {"Client": "headwater.client", "Settings": "headwater.settings"}
"""What not every process needs, and costs time to import."""


def __getattr__(name: str) -> Any:
    if name == "testing":
        return importlib.import_module("headwater.testing")
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module 'headwater' has no attribute {name!r}")
