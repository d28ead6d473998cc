"""The error tree: one wire code each, one outcome each, and the tree that the module draws of itself."""

import re
from pathlib import Path

import pytest

from strongroom import errors
from strongroom.errors import (
    ExitCode,
    FatalError,
    PermanentError,
    Rejected,
    StrongroomError,
    TransientError,
)
from strongroom.messages import Rejection

OUTCOMES = (PermanentError, TransientError, FatalError)
CLASSES: dict[str, type[StrongroomError]] = {
    name: each
    for name, each in vars(errors).items()
    if isinstance(each, type) and issubclass(each, StrongroomError)
}
CAUSES = {name: each for name, each in CLASSES.items() if each not in {StrongroomError, *OUTCOMES}}
SPEC = (Path(__file__).parents[2] / "SPEC.md").read_text(encoding="utf-8")


def _drawn() -> list[tuple[str, str]]:
    """Read child and parent of every line of the tree in the module's docstring."""
    parents = ["StrongroomError"]
    pairs = []
    for line in (errors.__doc__ or "").splitlines():
        drawn = re.match(r"^((?:│   |    )*)[├└]── (\w+)", line)
        if drawn:
            depth = len(drawn[1]) // 4 + 1
            parents[depth:] = [drawn[2]]
            pairs.append((drawn[2], parents[depth - 1]))
    return pairs


def test_the_drawn_tree_is_the_real_one() -> None:
    """Every class stands in the docstring once, below the class that it derives from, and nothing else does."""
    drawn = _drawn()
    assert sorted(child for child, _ in drawn) == sorted(CLASSES.keys() - {"StrongroomError"})
    for child, parent in drawn:
        assert CLASSES[child].__bases__ == (CLASSES[parent],)


def test_every_error_has_its_own_wire_code() -> None:
    """A code that came over the wire names one class."""
    codes = [each.code for each in CLASSES.values()]
    assert len(set(codes)) == len(codes)
    for each in CLASSES.values():
        assert "code" in vars(each)


def test_a_wire_code_names_its_permanent_error() -> None:
    """Each code leads back to its class; one that none has, or that of another outcome, is a plain refusal."""
    for each in PermanentError.__subclasses__():
        assert errors.by_code(each.code) is each
    for other in ("nonsense", errors.Busy.code, errors.LogForked.code):
        assert errors.by_code(other) is PermanentError


def test_every_cause_has_exactly_one_outcome() -> None:
    """Permanent, transient or fatal: a worker can always tell which of the three to do (rule 5)."""
    assert len(CAUSES) > 30
    for each in CAUSES.values():
        assert sum(issubclass(each, outcome) for outcome in OUTCOMES) == 1


def test_wire_codes_fit_into_a_rejection() -> None:
    """Whatever permanent error a worker meets, its code can be signed and sent."""
    for each in CAUSES.values():
        Rejection(
            authority="abc",
            request=None,
            digest="0" * 64,
            roster_version=1,
            code=each.code,
            message="",
            rejected_at=0,
            retry_at=None,
        )


def test_the_codes_of_the_specification_are_all_there() -> None:
    """SPEC section 12 promises these codes; all but the fork of a log are permanent."""
    section = SPEC.partition("## 12. Error codes")[2].partition("\n## ")[0]
    promised = set(re.findall(r"`([a-z_]+)`", section))
    by_code = {each.code: each for each in CAUSES.values()}
    assert len(promised) == 24
    assert promised <= by_code.keys()
    assert {code for code in promised if not issubclass(by_code[code], PermanentError)} == {"log_forked"}


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "Rejected"])
def test_an_error_keeps_message_and_hint(name: str) -> None:
    """What a person reads is the message, with the hint beside it and not inside."""
    error = CLASSES[name]("field: what is wrong", hint="what to do")
    assert (str(error), error.message, error.hint) == ("field: what is wrong", "field: what is wrong", "what to do")
    assert CLASSES[name]("alone").hint is None


def test_a_rejection_keeps_the_code_that_the_authority_gave() -> None:
    """The remote code is kept beside the class's own."""
    error = Rejected("not you", remote_code="denied", hint="ask")
    assert (error.message, error.remote_code, error.code, error.hint) == ("not you", "denied", "rejected", "ask")
    assert error.retry_at is None
    assert Rejected("too fast", remote_code="rate_limited", retry_at=1_800_000_000).retry_at == 1_800_000_000


def test_a_rejection_exits_as_the_error_that_the_authority_names() -> None:
    """Each code of the wire has the exit code of its class, and one that nobody knows a plain failure."""
    for each in PermanentError.__subclasses__():
        assert Rejected("no", remote_code=each.code).exit_code is each.exit_code
    assert Rejected("no", remote_code="nonsense").exit_code is ExitCode.FAILED


@pytest.mark.parametrize("error", [each for each in PermanentError.__subclasses__() if each is not Rejected])
def test_a_permanent_error_may_say_when_to_come_back(error: type[PermanentError]) -> None:
    """The time is kept beside the words; an error that is not told one has none."""
    assert error("later", retry_at=1_800_000_000).retry_at == 1_800_000_000
    assert error("never").retry_at is None


def test_exit_codes_are_those_of_the_command() -> None:
    """Every transient error exits with 75 (EX_TEMPFAIL), every fatal one with 1, and none with 0."""
    for each in CAUSES.values():
        assert each.exit_code is not ExitCode.DONE
        if issubclass(each, TransientError):
            assert each.exit_code is ExitCode.TRY_LATER
        if issubclass(each, FatalError):
            assert each.exit_code is ExitCode.FAILED
    assert int(ExitCode.TRY_LATER) == 75
    assert errors.NotFound.exit_code == 3
    for refused in (errors.Denied, errors.OfficerUnknown, errors.InvitationInvalid, errors.ApprovalInvalid):
        assert refused.exit_code == 4
    assert errors.RateLimited.exit_code == 75
    assert errors.ApprovalRequired.exit_code == 5
    assert errors.UsageError.exit_code == errors.ConfigurationInvalid.exit_code == 2


def test_every_error_says_what_it_is() -> None:
    """Each class has a docstring of its own: it is where a reader looks up a code."""
    for each in CLASSES.values():
        assert vars(each).get("__doc__")
