"""What users and this project test with."""

from headwater.models.scripted import Scripted
from headwater.testing.app import App, Run, StillWaitingError

__all__ = ["App", "Run", "Scripted", "StillWaitingError"]
