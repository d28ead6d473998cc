"""PKCS #11 URIs: what is taken, what is refused, and that no message shows a PIN."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.crypto.pkcs11_uri import URI_CHARACTERS_MAX, Pkcs11Uri
from strongroom.errors import ConfigurationInvalid

MODULE = "module-path=/usr/lib/softhsm/libsofthsm2.so"


def refused(text: str) -> ConfigurationInvalid:
    with pytest.raises(ConfigurationInvalid) as caught:
        Pkcs11Uri.parse(text)
    assert str(caught.value).startswith("PKCS #11 URI: ")
    assert caught.value.hint
    return caught.value


def test_every_attribute_is_read() -> None:
    """In any order, escaped where the standard asks for it."""
    found = Pkcs11Uri.parse(
        "pkcs11:model=SoftHSM%20v2;slot-id=1116078091;token=My%20%e2%82%ac;serial=c8a2;manufacturer=S+P"
        "?pin-source=file:/run/credentials/token%20pin&module-path=/usr/lib/softhsm/libsofthsm2.so"
    )
    assert found == Pkcs11Uri(
        module_path=Path("/usr/lib/softhsm/libsofthsm2.so"),
        token="My €",
        serial="c8a2",
        slot_id=1116078091,
        manufacturer="S+P",
        model="SoftHSM v2",
        pin_source=Path("/run/credentials/token pin"),
    )
    assert found.description == (
        "token 'My €', serial 'c8a2', manufacturer 'S+P', model 'SoftHSM v2', slot-id 1116078091"
    )


def test_a_pin_file_may_be_named_as_a_url_of_a_file() -> None:
    """Both ways to write a file: URI."""
    for written in ("file:/run/pin", "file:///run/pin"):
        assert Pkcs11Uri.parse(f"pkcs11:token=a?{MODULE}&pin-source={written}").pin_source == Path("/run/pin")


@pytest.mark.parametrize(
    "text",
    [
        f"pkcs11:token=a?{MODULE}&pin-value=hush-hush",
        f"pkcs11:token=a?pin-value=hush-hush hush&{MODULE}",
        "pkcs11:pin-value=hush-hush;nonsense=x",
        "pkcs11:token=a;pin-value=hush-hush?",
    ],
)
def test_a_pin_in_the_uri_is_refused_and_not_shown(text: str) -> None:
    """No secret stands in a setting, and an error must not put it into a log."""
    error = refused(text)
    assert "pin-value: no PIN may stand in a setting" in str(error)
    assert "hush" not in f"{error} {error.hint} {error!r}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not begin"),
        ("PKCS11:token=a", "does not begin"),
        ("pkcs11:", "module-path is missing"),
        ("pkcs11:token=a", "module-path is missing"),
        (f"pkcs11:?{MODULE}", "names no token"),
        (f"pkcs11:model=a;manufacturer=b?{MODULE}", "names no token"),
        (f"pkcs11:token=a;token=a?{MODULE}", "twice"),
        (f"pkcs11:token=a?{MODULE}&{MODULE}", "twice"),
        (f"pkcs11:token=a;?{MODULE}", "without a name"),
        (f"pkcs11:token?{MODULE}", "without a name"),
        (f"pkcs11:=a?{MODULE}", "without a name"),
        (f"pkcs11:token=?{MODULE}", "1 to 32"),
        (f"pkcs11:token={33 * 'a'}?{MODULE}", "1 to 32"),
        (f"pkcs11:serial={17 * 'a'}?{MODULE}", "1 to 16"),
        (f"pkcs11:token=a b?{MODULE}", "must be written as %"),
        (f"pkcs11:token=a%4?{MODULE}", "must be written as %"),
        (f"pkcs11:token=%ff?{MODULE}", "no UTF-8"),
        (f"pkcs11:token=a%20?{MODULE}", "blank"),
        (f"pkcs11:token=a%0ab?{MODULE}", "not printed"),
        (f"pkcs11:token=a%00?{MODULE}", "not printed"),
        (f"pkcs11:slot-id=-1?{MODULE}", "no number"),
        (f"pkcs11:slot-id=1x?{MODULE}", "no number"),
        (f"pkcs11:token=a;object=b?{MODULE}", "found by themselves"),
        (f"pkcs11:token=a;id=%01?{MODULE}", "found by themselves"),
        (f"pkcs11:token=a;library-version=3?{MODULE}", "means nothing here"),
        (f"pkcs11:token=a?{MODULE}&x-vendor=1", "means nothing here"),
        (f"pkcs11:token=a;module-path=%2fx?{MODULE}", "means nothing here"),
        ("pkcs11:token=a?module-name=softhsm2", "named by its file"),
        ("pkcs11:token=a?module-path=softhsm.so", "no absolute path"),
        ("pkcs11:token=a?module-path=", "no absolute path"),
        ("pkcs11:token=a?module-path=/a%00b", "no absolute path"),
        ("pkcs11:token=a?module-path=/%ff", "no UTF-8"),
        (f"pkcs11:token=a?{MODULE}&pin-source=/run/pin", "is no file"),
        (f"pkcs11:token=a?{MODULE}&pin-source=|/bin/cat", "is no file"),
        (f"pkcs11:token=a?{MODULE}&pin-source=https://example.org/pin", "is no file"),
        (f"pkcs11:token=a?{MODULE}&pin-source=file:pin", "no absolute path"),
        (f"pkcs11:token=a?{MODULE}&pin-source=file:", "no absolute path"),
        (f"pkcs11:token={URI_CHARACTERS_MAX * 'a'}", "longer than"),
    ],
)
def test_everything_else_is_refused(text: str, words: str) -> None:
    """What would be passed over could have meant another token."""
    assert words in str(refused(text))


words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=16).filter(
    lambda text: text.isprintable() and text == text.strip() and len(text.encode()) <= 16
)
files = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30).map(
    lambda text: Path("/" + text.lstrip("/"))
)


@given(
    st.builds(
        Pkcs11Uri,
        module_path=files,
        token=words,
        serial=st.none() | words,
        slot_id=st.none() | st.integers(0, 2**63 - 1),
        manufacturer=st.none() | words,
        model=st.none() | words,
        pin_source=st.none() | files,
    )
)
def test_what_is_written_is_read_back(uri: Pkcs11Uri) -> None:
    """Every token can be named."""
    assert Pkcs11Uri.parse(str(uri)) == uri


pieces = st.sampled_from(
    [
        "pkcs11:",
        "token=",
        "serial=a",
        "slot-id=",
        "1",
        ";",
        "?",
        "&",
        "=",
        "%",
        "%20",
        MODULE,
        "pin-source=file:/p",
        "€",
    ]
)


@given(st.lists(pieces | st.text(max_size=5), max_size=12).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No other error leaves the parser, and what it reads it writes so that it means the same."""
    for each in (text, f"pkcs11:{text}"):
        try:
            found = Pkcs11Uri.parse(each)
        except ConfigurationInvalid:
            continue
        assert Pkcs11Uri.parse(str(found)) == found
