"""What users and this project test with."""

from headwater.histories import HistoryError
from headwater.models.scripted import Scripted
from headwater.testing.app import App, Run
from headwater.testing.replaying import ReplayError, replay
from headwater.testing.stage import StillWaitingError

__all__ = ["App", "HistoryError", "ReplayError", "Run", "Scripted", "StillWaitingError", "replay"]
