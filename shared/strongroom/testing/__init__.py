"""A backup authority inside the process, for testing programs that talk to one.

`FakeAuthority` has real keys, verifies and signs real statements and keeps two real logs; only the broker and the
database are missing. What an agent accepts from it, it accepts from the real workers, and what they refuse, it
refuses. Faults are switched on by attributes: no broker, workers that stand still, answers that get lost or are
tampered with on the way.
"""

from strongroom.testing.authority import FakeAuthority, FakeLink, FakeMessage
from strongroom.testing.evidence import FakeEvidence, StoredRecord
from strongroom.testing.log import FakeLog
from strongroom.testing.trust import FakeTrust
from strongroom.testing.workers import FakeWorkers

__all__ = [
    "FakeAuthority",
    "FakeEvidence",
    "FakeLink",
    "FakeLog",
    "FakeMessage",
    "FakeTrust",
    "FakeWorkers",
    "StoredRecord",
]
