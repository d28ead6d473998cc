"""What a refusal by the authority is followed by: an error's own hint, or one by its code and words."""

import pytest

from strongroom.errors import NotFound, Rejected
from strongroom_cli.hints import hint_for


@pytest.mark.parametrize(
    ("code", "words", "hint"),
    [
        ("not_found", "name: laptop-0417 has no record named 'disk'", "strongroom records"),
        ("not_found", "request: there is no request 1 on the record", "strongroom requests"),
        ("not_found", "principal: nobody was ever enrolled as laptop-0417", "compare the name"),
        ("principal_revoked", "principal: laptop-0417 was revoked", "invite NAME --replace"),
        ("principal_unknown", "principal: nobody is enrolled as laptop-0417", "strongroom enrol"),
        ("record_conflict", "wrapping.digest: another principal escrowed this wrapped key first", "log verify"),
        ("invitation_invalid", "principal: laptop-0417 is enrolled, and it does not replace", "NAME --replace"),
        ("invitation_invalid", "invitation: signed by 1 officers", "strongroom countersign"),
        ("invitation_invalid", "invitation: 1 was used before", "new invitation"),
        ("malformed", "unwrap: record 1 is not a wrapped key", "without --unwrap"),
    ],
)
def test_a_refusal_is_followed_by_what_to_do(code: str, words: str, hint: str) -> None:
    """By the code, and where one code means several things by the words."""
    assert hint in (hint_for(Rejected(f"the authority says: {words}", remote_code=code)) or "")


def test_an_errors_own_hint_comes_first_and_others_get_none() -> None:
    """Only what the authority refused is looked up."""
    assert hint_for(Rejected("no record", remote_code="not_found", hint="look again")) == "look again"
    assert hint_for(Rejected("no", remote_code="denied")) is None
    assert hint_for(NotFound("no record")) is None
