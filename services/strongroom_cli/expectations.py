"""What policy expects principals to hold, as it is written on the command line: `PREFIX[LABEL=VALUE]:NAME,NAME`."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import rich_click as click

from strongroom.errors import UsageError
from strongroom_cli.options import Command

if TYPE_CHECKING:
    from strongroom.mandates import Expectation

_NONE: Final = "none"
_FORM: Final = re.compile(
    r"(?P<prefix>[a-z0-9-]*)(\[(?P<label>[^=\]]+)=(?P<value>[^\]]*)\])?:(?P<names>.+)", re.DOTALL
)


def expect_option(words: str) -> Callable[[Command], Command]:
    """Add `--expect`, with these words behind its meaning; the command receives `expected`, as `parse` gives it."""

    def read(
        _context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
    ) -> "list[Expectation] | None":
        return parse(given)

    def add(function: Command) -> Command:
        return click.option(
            "--expect",
            "expected",
            multiple=True,
            metavar="PREFIX[[LABEL=VALUE]]:NAME,…",
            callback=read,
            help="Principals whose names begin with PREFIX, which may be empty, and that have a record with this"
            f" label where one is given, should hold a key under each NAME; repeatable. {words}",
        )(function)

    return add


def parse(given: Sequence[str]) -> "list[Expectation] | None":
    """Read what was given for --expect: None for nothing at all, an empty list for the word `none`.

    Raises UsageError, which quotes what is wrong; MalformedStatement and LimitExceeded for names out of shape.
    """
    if not given:
        return None
    if _NONE in given:
        if len(given) > 1:
            raise UsageError("--expect none: stands alone")
        return []
    return [_expectation(text) for text in given]


def _expectation(text: str) -> "Expectation":
    from strongroom.fields import validated
    from strongroom.mandates import Expectation

    found = _FORM.fullmatch(text)
    names = [name.strip() for name in found["names"].split(",")] if found else []
    if found is None or not all(names):
        raise UsageError(
            f"--expect {text[:80]!r}: must be PREFIX:NAME,… or PREFIX[LABEL=VALUE]:NAME,…",
            hint="e.g. --expect 'laptop-:disk/root' or --expect '[site=north]:vpn'; `none` expects nothing",
        )
    label = {"name": found["label"], "value": found["value"]} if found["label"] else None
    return validated({"prefix": found["prefix"], "label": label, "names": list(dict.fromkeys(names))}, Expectation)
