"""What the prover says of itself: a line a minute, and a metrics file for Prometheus."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from strongroom.database import Database
from strongroom.logs import get_logger
from strongroom.mandates import Policy
from strongroom_recovery.coverage_store import superseding
from strongroom_recovery.gaps import replaced
from strongroom_recovery.ledger import Ledger
from strongroom_recovery.prover.proving import Looked
from strongroom_recovery.states import replace_by

REPORT_SECONDS: Final = 60.0


class Report:
    """Counts what the prover does, and tells it once a minute.

    escrow_size: leaves of the escrow log, as last seen.
    """

    def __init__(
        self,
        ledger: Ledger,
        metrics_file: Path | None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Tell of this ledger; without a file the line in the log is all."""
        self.escrow_size = 0
        self._ledger = ledger
        self._file = metrics_file
        self._clock = clock
        self._monotonic = monotonic
        self._outcomes: Counter[str] = Counter({"proven": 0})
        self._records = 0  # since the last line
        self._began = self._next_at = monotonic()
        self._overdue = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Families(self))
        self._log = get_logger()

    def looked(self, looked: Looked) -> None:
        """Count a look whose leaf was committed."""
        self._outcomes["proven"] += looked.records
        self._outcomes.update(each.code for each in looked.unprovable)
        self._records += looked.records + len(looked.unprovable)

    async def tell(self, database: Database, policy: Policy) -> None:
        """Write the line and the file, if it is time. Raises DatabaseUnavailable; a file that fails is logged."""
        now = self._monotonic()
        if now < self._next_at:
            return
        self._next_at = now + REPORT_SECONDS
        self._overdue = await self._count_overdue(database, policy)
        proofs, oldest = self._ledger.proofs, self._ledger.proofs.oldest()
        self._log.info(
            "proving",
            records=self._records,
            rate=round(self._records / (now - self._began)) if now > self._began else 0,
            backlog=self.backlog(),
            oldest_at=None if oldest is None else oldest.time,
            unprovable=sum(1 for _ in proofs.findings()),
        )
        self._records, self._began = 0, now
        if self._file is not None:
            try:
                write_to_textfile(str(self._file), self._registry)
            except OSError as error:
                self._log.error("metrics file cannot be written", reason=error.strerror)

    def backlog(self) -> int:
        """Return how many leaves of the escrow log were never looked at."""
        return sum(end - first for first, end in self._ledger.proofs.gaps(self.escrow_size))

    async def _count_overdue(self, database: Database, policy: Policy) -> int:
        """Return how many keys somebody else was given, and their owners have not replaced in time."""
        now = int(self._clock())
        overdue = {
            record: case.principal
            for record, case in self._ledger.disclosures()
            if not case.is_own and (replace_by(case, policy.replace_days) or now) < now
        }
        if not overdue:
            return 0
        async with database.reading() as tx:
            newer = await superseding(tx, list(overdue))
        return len(overdue) - len(replaced(self._ledger, overdue, newer))

    def families(self) -> Iterator[Metric]:
        """Give the metrics of this moment."""
        outcomes = CounterMetricFamily(
            "strongroom_prover_records", "Records looked at by this process, by outcome.", labels=["outcome"]
        )
        for outcome, count in sorted(self._outcomes.items()):
            outcomes.add_metric([outcome], count)
        yield outcomes
        oldest = self._ledger.proofs.oldest()
        yield GaugeMetricFamily(
            "strongroom_prover_backlog_leaves", "Leaves of the escrow log never looked at.", self.backlog()
        )
        if oldest is not None:
            yield GaugeMetricFamily(
                "strongroom_prover_oldest_look_timestamp_seconds", "The look that is longest ago.", oldest.time
            )
        yield GaugeMetricFamily(
            "strongroom_prover_unprovable_records",
            "Records, or statements whose records are not known, that could not be given back.",
            sum(1 for _ in self._ledger.proofs.findings()),
        )
        yield GaugeMetricFamily(
            "strongroom_disclosed_overdue_records",
            "Keys that somebody else was given and that were not replaced in time.",
            self._overdue,
        )


class _Families(Collector):
    def __init__(self, report: Report) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        return self._report.families()
