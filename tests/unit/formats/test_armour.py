"""PEM and S/MIME: one strict block, nothing around it, and no word of its content in an error."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cms import vector

from strongroom.errors import LimitExceeded, MalformedStatement
from strongroom.formats.armour import ARMOURED_BYTES_MAX, is_mime, is_pem, read_pem, read_smime

UNTIMED = settings(deadline=None)  # a busy machine is no failure
LABEL = "PRIVATE KEY"


def pem(content: bytes, label: str = LABEL, *, line: int = 64, end: str = "\n") -> bytes:
    text = base64.b64encode(content).decode()
    lines = [text[start : start + line] for start in range(0, len(text), line)]
    return end.join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def smime(**headers: str) -> bytes:
    found = {
        "MIME-Version": "1.0",
        "Content-Type": 'application/pkcs7-mime; smime-type=enveloped-data; name="smime.p7m"',
        "Content-Transfer-Encoding": "base64",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    return "".join(f"{name}: {value}\n" for name, value in found.items()).encode() + b"\nc2VjcmV0\n"


@UNTIMED
@given(st.binary(max_size=500), st.sampled_from([64, 76, 1000]), st.sampled_from(["\n", "\r\n"]))
def test_every_content_comes_back(content: bytes, line: int, end: str) -> None:
    """Whatever the length of the lines, and how they end."""
    data = pem(content, line=line, end=end)
    assert is_pem(data)
    assert read_pem(b"\n " + data + b" \n", (LABEL,)) == (LABEL, content)


@UNTIMED
@given(st.binary(min_size=1, max_size=80), st.data())
def test_a_cut_or_changed_block_is_refused_or_has_other_content(content: bytes, draw: st.DataObject) -> None:
    """Never anything but one of two errors."""
    data = bytearray(pem(content))
    if draw.draw(st.booleans()):
        data = data[: draw.draw(st.integers(0, len(data) - 2))]
    else:
        data[draw.draw(st.integers(0, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        label, _ = read_pem(bytes(data), (LABEL,))
    except (MalformedStatement, LimitExceeded):
        return
    assert label == LABEL


@UNTIMED
@given(st.binary(max_size=200))
def test_no_bytes_make_the_readers_fail_otherwise(data: bytes) -> None:
    """Headers and blocks of any kind."""
    for attempt in (data, smime() + data, pem(data) + data):
        for reader in (lambda text: read_pem(text, (LABEL,)), read_smime):
            try:
                reader(attempt)
            except (MalformedStatement, LimitExceeded):
                continue


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pem(b"secret", "RSA PRIVATE KEY"), "^PEM: is 'RSA PRIVATE KEY', must be 'PRIVATE KEY'$"),
        (pem(b"secret") * 2, "holds 2 blocks"),
        (b"text\n" + pem(b"secret"), "is not well-formed"),
        (pem(b"secret") + b"text", "is not well-formed"),
        (pem(b"secret").replace(b"c2Vj", b"c2V!"), "is not well-formed"),
        (pem(b"secret").replace(b"c2Vj", b"c2V"), "not well-formed base64"),
        (pem(b"secret!").replace(b"IQ==", b"=IQ="), "not well-formed base64"),
        (pem(b"secret").replace(b"-----\n", b"-----\nProc-Type: 4,ENCRYPTED\n\n", 1), "is not well-formed"),
        (pem(b"secret").replace(b"END PRIVATE", b"END PUBLIC"), "is not well-formed"),
        (b"", "holds 0 blocks"),
    ],
)
def test_what_is_not_one_strict_block_is_refused_without_a_word_of_it(data: bytes, words: str) -> None:
    """Other labels, text around it, headers in it, base64 that is none."""
    with pytest.raises(MalformedStatement, match=words) as caught:
        read_pem(data, (LABEL,))
    assert "secret" not in str(caught.value)
    assert "c2V" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_armour_is_read_to_its_limit_and_no_further() -> None:
    """Before anything else is done with it."""
    data = pem(b"secret")
    assert read_pem(data.ljust(ARMOURED_BYTES_MAX), (LABEL,))[1] == b"secret"
    for reader in (lambda text: read_pem(text, (LABEL,)), read_smime):
        with pytest.raises(
            LimitExceeded, match=r"^armour: has 131073 bytes; ARMOURED_BYTES_MAX allows 131072 bytes$"
        ):
            reader(data.ljust(ARMOURED_BYTES_MAX + 1))


def test_what_openssl_writes_when_nothing_is_said_is_smime() -> None:
    """Its content is the same message in DER that it writes as PEM, but for what is random."""
    data = vector("default.smime")
    assert is_mime(data)
    assert not is_pem(data)
    assert read_smime(data)[:30] == read_pem(vector("default.pem"), ("CMS",))[1][:30]
    assert read_smime(data.replace(b"\n", b"\r\n")) == read_smime(data)
    assert not is_mime(vector("default.der"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (smime(Content_Type="text/plain"), "Content-Type"),
        (smime(Content_Type="text/plain; smime-type=enveloped-data"), "Content-Type"),
        (smime(Content_Type="application/pkcs7-mime; smime-type=signed-data"), "Content-Type"),
        (smime(Content_Type="application/pkcs7-mime"), "Content-Type"),
        (smime(Content_Transfer_Encoding="8bit"), "Content-Transfer-Encoding"),
        (smime(Content_Type="multipart/mixed; boundary=b"), "Content-Type"),
        (smime() + b"!", "not well-formed base64"),
        (smime() + b"\xff", "not well-formed base64"),
        (smime(Content_Type="application/pkcs7-mime; x=smime-type=enveloped-data"), "Content-Type"),
        (smime(Content_Transfer_Encoding="base64\xff"), "Content-Transfer-Encoding"),
        (b"MIME-Version: 1.0\nContent-Type: application/pkcs7-mime\n", "has misshapen headers"),
        (b"Content-Type: text/plain\n" + smime(), "has misshapen headers"),
        (b"no header\n" + smime(), "has misshapen headers"),
        (b"", "has misshapen headers"),
    ],
)
def test_other_mime_is_refused(data: bytes, words: str) -> None:
    """Only enveloped data in base64 is read."""
    assert read_smime(smime()) == b"secret"
    for other in (
        "application/x-pkcs7-mime; smime-type=enveloped-data",
        "Application/PKCS7-mime;\n\tsmime-type=enveloped-data",
    ):
        assert read_smime(smime(Content_Type=other)) == b"secret"
    with pytest.raises(MalformedStatement, match=words):
        read_smime(data)
