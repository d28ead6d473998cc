"""What to do next where the authority has refused something: its answers carry a code and words, and no hint."""

from typing import Final

from strongroom.errors import (
    InvitationInvalid,
    MalformedStatement,
    NotFound,
    PrincipalRevoked,
    PrincipalUnknown,
    RecordConflict,
    Rejected,
    StrongroomError,
)

# Code of the refusal, words in it (none: any), and the hint; the first that fits counts.
_HINTS: Final = (
    (NotFound.code, "no record", "`strongroom records` lists what there is; for another host with --principal"),
    (NotFound.code, "no request", "`strongroom requests --all` lists those that are on record"),
    (NotFound.code, "", "compare the name: `strongroom records --principal NAME`"),
    (
        PrincipalRevoked.code,
        "",
        "officers let this host in again: `strongroom invite NAME --replace`; then enrol in a new folder (--home)",
    ),
    (
        MalformedStatement.code,
        "is not a wrapped key",
        "it is as it was made: the same command without --unwrap and --as",
    ),
    (
        RecordConflict.code,
        "another principal escrowed this wrapped key first",
        "if it is your own, ask officers and auditors who has a copy; `strongroom log verify` checks the log",
    ),
    (PrincipalUnknown.code, "", "enrol with an officer's invitation: `strongroom enrol FILE`"),
    (
        InvitationInvalid.code,
        "is enrolled",
        "if that host has lost its key, ask the officers for `strongroom invite NAME --replace`",
    ),
    (InvitationInvalid.code, "signed by", "other officers sign it, too: `strongroom countersign FILE`"),
    (InvitationInvalid.code, "", "ask an officer for a new invitation"),
)


def hint_for(error: StrongroomError) -> str | None:
    """Return an error's own hint, or one that suits the code and words of the authority's refusal."""
    if error.hint is not None or not isinstance(error, Rejected):
        return error.hint
    fitting = (hint for code, words, hint in _HINTS if error.remote_code == code and words in error.message)
    return next(fitting, None)
