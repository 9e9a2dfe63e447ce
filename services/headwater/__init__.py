"""headwater: fleets of LLM agents on Apache Kafka, for people who must prove what their agents did."""

from headwater.contracts.derive import Json, Scale
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
from headwater.sdk.context import Context
from headwater.sdk.types import Budget, Call, ModelReply

__all__ = [
    "AgentError",
    "App",
    "Budget",
    "BudgetExceeded",
    "Call",
    "CallError",
    "Context",
    "DeadlineExceeded",
    "Denied",
    "HeadwaterError",
    "Json",
    "ModelError",
    "ModelReply",
    "NotDone",
    "PoisonError",
    "Price",
    "Scale",
    "SettingsError",
    "ToolError",
    "ToolTimeout",
    "TransientError",
    "usd_per_million",
]
