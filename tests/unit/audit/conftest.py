"""Authorities in memory, their exports, and what an audit says of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.exports import Authority

from strongroom_audit.findings import Finding, Severity
from strongroom_audit.folder import Export
from strongroom_audit.verify import Options, Verdict, verify


class Audited:
    """An authority, its export in a folder, and the verdicts on that."""

    def __init__(self, authority: Authority, path: Path) -> None:
        self.authority = authority
        self.path = path

    def export(self) -> Path:
        """Write the export anew."""
        return self.authority.export(self.path)

    def verdict(self, **options: Any) -> Verdict:
        """Verify what is in the folder."""
        given: dict[str, Any] = {"root_key": self.authority.root.public_key, "now": self.authority.now, **options}
        return verify(Export(self.path), Options(**given))

    def findings(self, **options: Any) -> list[Finding]:
        """Verify what is in the folder, written anew if it is not there."""
        if not self.path.exists():
            self.export()
        return self.verdict(**options).findings.kept

    def errors(self, **options: Any) -> list[tuple[str, int | None, str]]:
        """Return log, leaf and code of each error."""
        return [
            (each.log, each.index, each.code)
            for each in self.findings(**options)
            if each.severity is Severity.ERROR
        ]

    def warnings(self, **options: Any) -> list[tuple[str, int | None, str]]:
        """Return log, leaf and code of each warning."""
        return [
            (each.log, each.index, each.code)
            for each in self.findings(**options)
            if each.severity is Severity.WARNING
        ]


Make = Callable[..., Audited]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make an authority with two enrolled hosts, and an export of it as soon as it is asked for."""

    def made(**options: Any) -> Audited:
        authority = Authority(**options)
        authority.enrol("laptop-1")
        authority.enrol("laptop-2")
        return Audited(authority, tmp_path / "export")

    return made


@pytest.fixture
def audited(make: Make) -> Audited:
    """Two hosts, an escrow log of 300 leaves (a full bundle and another), a release and a proof."""
    made = make()
    authority = made.authority
    first = authority.store("laptop-1", "disk", "swap")
    for number in range(299):
        authority.store(f"laptop-{number % 2 + 1}")
    request = authority.ask("laptop-1", "laptop-1", name="swap")
    authority.release(request, [first.records[1].id])
    authority.prove(0, 300)
    authority.attest("laptop-1", first.records[0].id)
    return made
