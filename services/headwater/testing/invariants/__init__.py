"""The thirteen invariants: what must hold of what was written, whatever broke on the way.

Each checker reads a `Book`, plain records and what the world outside saw, and yields what does not
hold. They know nothing of who wrote the records, so the same ones judge simulated histories and what
a consumer reads back from Kafka.
"""

from headwater.testing.invariants.book import Act, Book, Death, Gauge, Story, Told
from headwater.testing.invariants.verdict import CHECKERS, RULES, Violation, violations

__all__ = [
    "CHECKERS",
    "RULES",
    "Act",
    "Book",
    "Death",
    "Gauge",
    "Story",
    "Told",
    "Violation",
    "violations",
]
