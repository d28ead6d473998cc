"""Folders and CSV files of existing keys: what is read is exact, and what does not fit is named, never quoted."""

import base64
import csv
import io
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.crypto.rsa import Padding
from strongroom.errors import UsageError
from strongroom.limits import KEY_MATERIAL_BYTES_MAX, NAME_CHARACTERS_MAX
from strongroom.messages import WrappedFormat
from strongroom_agent.import_csv import ROW_BYTES_MAX, CsvFile
from strongroom_agent.import_entries import Defaults, Found, RefusedEntry
from strongroom_agent.import_sources import Folder, source_of

CANARY = "planted-canary-cell"

plain = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=NAME_CHARACTERS_MAX)
material = st.binary(min_size=1, max_size=200)
in_a_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def written(path: Path, content: bytes) -> CsvFile:
    path.write_bytes(content)
    return CsvFile(path, Defaults())


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, line_end: str = "\r\n") -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=line_end)
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue().encode()


def keys(entries: Sequence[Found | RefusedEntry]) -> dict[str, bytes]:
    found = [each for each in entries if isinstance(each, Found)]
    assert len(found) == len(entries), entries
    return {each.key.name: each.key.material.expose() for each in found}


def only_refusal(source: CsvFile | Folder) -> RefusedEntry:
    """Return the one entry, which is refused, and which does not quote what was planted."""
    [entry] = source.entries()
    assert isinstance(entry, RefusedEntry)
    assert CANARY not in entry.message
    return entry


# ---- CSV files -----------------------------------------------------------------------------------


@in_a_folder
@given(
    rows=st.dictionaries(plain, material, max_size=20),
    line_end=st.sampled_from(["\r\n", "\n"]),
    bom=st.booleans(),
    column=st.sampled_from(["base64", "hex"]),
)
def test_every_key_of_a_table_comes_out_as_it_was_put_in(
    tmp_path: Path, rows: Mapping[str, bytes], line_end: str, column: str, *, bom: bool
) -> None:
    """Whatever its name holds: commas, quotes, spaces, any script; with a byte order mark or without."""
    encoded = {
        name: base64.b64encode(key).decode() if column == "base64" else key.hex() for name, key in rows.items()
    }
    content = table(("name", column), list(encoded.items()), line_end=line_end)
    source = written(tmp_path / "keys.csv", b"\xef\xbb\xbf" * bom + content)
    assert keys(list(source.entries())) == rows
    assert source.done == source.size


@in_a_folder
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_a_text_cell_is_its_bytes(tmp_path: Path, text: str) -> None:
    """Line ends, quotes and zero bytes inside it, too."""
    source = written(tmp_path / "keys.csv", table(("name", "text"), [("disk", text), ("next", "k")]))
    assert keys(list(source.entries())) == {"disk": text.encode(), "next": b"k"}


@in_a_folder
@given(garbage=st.binary(max_size=400), headed=st.booleans())
def test_no_bytes_do_more_than_be_refused(tmp_path: Path, garbage: bytes, *, headed: bool) -> None:
    """An entry or a refusal for each row, or a usage error for the header."""
    source = written(tmp_path / "keys.csv", b"name,base64,file\r\n" * headed + garbage)
    try:
        entries = list(source.entries())
    except UsageError:
        entries = None
    assert not headed or entries is not None
    assert all(entry.row >= 2 for entry in entries or ())


def test_all_that_is_said_of_a_key_is_kept(tmp_path: Path) -> None:
    """Columns, labels, and what the options say of all; an empty cell says nothing."""
    header = ("name", "hex", "kind", "description", "serial_number", "algorithm", "label:site", "label:team")
    path = tmp_path / "keys.csv"
    rows = [("a", "00ff", "disk-key", "of a", "C02", "AES", "Oslo", ""), ("b", "FF", "", "", "", "", "", "x")]
    path.write_bytes(table(header, rows))
    defaults = Defaults(kind="session-key", algorithm="RC4", labels={"team": "ops"})
    one, other = (entry.key for entry in CsvFile(path, defaults).entries() if isinstance(entry, Found))
    assert (one.kind, one.description, one.serial_number, one.algorithm) == ("disk-key", "of a", "C02", "AES")
    assert one.labels == {"team": "ops", "site": "Oslo"}
    assert (other.kind, other.algorithm, other.labels) == ("session-key", "RC4", {"team": "x"})
    assert (one.material.expose(), other.material.expose()) == (b"\x00\xff", b"\xff")


def test_a_wrapped_key_says_how(tmp_path: Path) -> None:
    """By its row, or by the options for all; padding without a format means nothing."""
    path = tmp_path / "keys.csv"
    path.write_bytes(
        table(
            ("name", "hex", "format", "padding"),
            [("a", "00", "cms", ""), ("b", "00", "", "oaep"), ("c", "00", "zip", ""), ("d", "00", "cms", "none")],
        )
    )
    entries = list(CsvFile(path, Defaults(format=WrappedFormat.CRYPTOAPI_SIMPLE)).entries())
    told = [
        (e.key.wrapped.format, e.key.wrapped.padding) for e in entries if isinstance(e, Found) and e.key.wrapped
    ]
    assert told == [(WrappedFormat.CMS, None), (WrappedFormat.CRYPTOAPI_SIMPLE, Padding.OAEP)]
    assert [e.message.split(":")[0] for e in entries if isinstance(e, RefusedEntry)] == ["format", "padding"]
    [_, bare, _, _] = CsvFile(path, Defaults()).entries()
    assert isinstance(bare, RefusedEntry)


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        (f"disk,{CANARY}", "malformed", "base64: is not canonical base64"),
        ("disk,YWJjZB==", "malformed", "base64: is not canonical base64"),
        ("disk,", "malformed", "none of them"),
        (f"disk,YWJj,{CANARY}", "malformed", "row: has 3 fields, the header has 2"),
        (f'disk,"{CANARY}"x', "malformed", "row: is not CSV"),
        (f'disk,"{CANARY}', "malformed", "row: is not CSV"),
        (f"{CANARY * 10},YWJj", "limit_exceeded", "name: the limit is at most 128"),
        ("di\x00sk,YWJj", "malformed", "name: "),
        (",YWJj", "limit_exceeded", "name: the limit is at least 1"),
    ],
)
def test_a_row_that_is_wrong_is_named_by_line_and_field(tmp_path: Path, row: str, code: str, words: str) -> None:
    """And the row before it counts."""
    source = written(tmp_path / "keys.csv", f"name,base64\r\nfirst,YWJj\r\n{row}".encode())
    first, refused = source.entries()
    assert isinstance(first, Found)
    assert isinstance(refused, RefusedEntry)
    assert (refused.row, refused.code) == (3, code)
    assert words in refused.message
    assert CANARY not in refused.message


def test_a_row_in_another_encoding_is_refused_alone(tmp_path: Path) -> None:
    """Latin-1 is no UTF-8; what follows is."""
    source = written(tmp_path / "keys.csv", b"name,text\nb\xe6r,k\nplum,k\n")
    refused, good = source.entries()
    assert isinstance(refused, RefusedEntry)
    assert refused.message == "row: is not UTF-8"
    assert isinstance(good, Found)


@pytest.mark.parametrize("quoted", [False, True])
def test_a_huge_row_is_passed_over_and_nothing_inside_it_is_a_key(tmp_path: Path, *, quoted: bool) -> None:
    """Also where lines inside its quotes look like rows."""
    inside = "evil,YWJj\n" if quoted else "x"
    quote = '"' * quoted
    huge = quote + inside * (ROW_BYTES_MAX // len(inside) + 1) + quote
    source = written(tmp_path / "keys.csv", f"name,base64\nbig,{huge}\nafter,YWJj\n".encode())
    refused, after = source.entries()
    assert isinstance(refused, RefusedEntry)
    assert (refused.row, refused.code) == (2, "limit_exceeded")
    assert isinstance(after, Found)
    assert after.key.name == "after"
    assert after.row == 3 + huge.count("\n")


@pytest.mark.parametrize("column", ["base64", "hex", "text"])
def test_the_longest_key_fits_and_one_more_byte_does_not(tmp_path: Path, column: str) -> None:
    """In every column, as one row."""
    for count, code in ((KEY_MATERIAL_BYTES_MAX, None), (KEY_MATERIAL_BYTES_MAX + 1, "limit_exceeded")):
        key = b'"' * count if count == KEY_MATERIAL_BYTES_MAX else b"x" * count
        cell = {"base64": base64.b64encode(key).decode(), "hex": key.hex(), "text": key.decode()}[column]
        [entry] = written(tmp_path / "keys.csv", table(("name", column), [("disk", cell)])).entries()
        if code is None:
            assert isinstance(entry, Found)
            assert entry.key.material.expose() == key
        else:
            assert isinstance(entry, RefusedEntry)
            assert entry.code in {code, "malformed"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"disk,planted-canary-cell\n",
        b"name,password\ndisk,k\n",
        b"name\ndisk\n",
        b"base64\nYWJj\n",
        b"name,text,text\n",
        b'name,"text\n',
        b"name;text\ndisk;k\n",
        "name,text\ndisk,k\n".encode("utf-16"),
        b"x" * (ROW_BYTES_MAX + 1),
    ],
)
def test_a_file_without_a_header_is_no_source(tmp_path: Path, content: bytes) -> None:
    """Its first row may be keys, and is not quoted."""
    source = written(tmp_path / "keys.csv", content)
    with pytest.raises(UsageError) as caught:
        list(source.entries())
    assert CANARY not in caught.value.message
    assert "password" not in caught.value.message
    assert caught.value.hint is not None


def test_a_row_may_name_a_file_below_the_folder_and_none_elsewhere(tmp_path: Path) -> None:
    """Not by `..`, not by an absolute path, not by a link on the way."""
    folder = tmp_path / "f"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "k").write_bytes(b"\x00key")
    (tmp_path / "outside").write_bytes(b"outside")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "up").symlink_to(tmp_path)
    paths = ["sub/k", "../outside", str(tmp_path / "outside"), "link", "up/outside", "missing", "sub"]
    source = written(folder / "keys.csv", table(("name", "file"), [(f"n{i}", p) for i, p in enumerate(paths)]))
    good, *refused = source.entries()
    assert isinstance(good, Found)
    assert good.key.material.expose() == b"\x00key"
    assert [each.code for each in refused if isinstance(each, RefusedEntry)] == [
        "malformed",
        "malformed",
        "unreadable",
        "unreadable",
        "unreadable",
        "unreadable",
    ]


# ---- folders ---------------------------------------------------------------------------------------


def test_every_file_of_a_folder_is_a_key_by_its_path(tmp_path: Path) -> None:
    """At any depth, byte for byte."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "top").write_bytes(b"\x00\n")
    (tmp_path / "a" / "b" / "deep key.bin").write_bytes(b"\xff")
    source = Folder(tmp_path, Defaults(kind="disk-key"))
    assert source.size == 2
    assert keys(list(source.entries())) == {"top": b"\x00\n", "a/b/deep key.bin": b"\xff"}
    assert source.done == 2


def test_what_is_no_key_in_a_folder_is_reported_and_no_link_followed(tmp_path: Path) -> None:
    """Hidden, linked, special, empty, too long, with a name that does not fit or that is no text."""
    folder = tmp_path / "f"
    (folder / ".git" / "objects").mkdir(parents=True)
    (folder / ".git" / "objects" / "x").write_bytes(b"k")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "k").write_bytes(b"k")
    (folder / "folder-link").symlink_to(tmp_path / "elsewhere")
    (folder / "file-link").symlink_to(tmp_path / "elsewhere" / "k")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        (folder / "empty").touch()
        (folder / "long").write_bytes(bytes(KEY_MATERIAL_BYTES_MAX + 1))
        (folder / ("n" * 129)).write_bytes(b"k")
        (folder / "line\nbreak").write_bytes(b"k")
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_bytes(b"k")
        entries = list(Folder(folder, Defaults()).entries())
    refused = {each.name: each.code for each in entries if isinstance(each, RefusedEntry)}
    assert len(refused) == len(entries)
    assert refused == {
        ".git": "hidden",
        "folder-link": "link",
        "file-link": "link",
        "pipe": "special",
        "socket": "special",
        "empty": "limit_exceeded",
        "long": "limit_exceeded",
        "n" * NAME_CHARACTERS_MAX: "limit_exceeded",
        "line?break": "malformed",
        "?": "malformed",
    }


def test_a_source_is_a_folder_or_a_file(tmp_path: Path) -> None:
    """Nothing else, and the same one has the same id by whatever path."""
    (tmp_path / "keys.csv").write_bytes(b"name,text\n")
    (tmp_path / "link").symlink_to(tmp_path)
    assert isinstance(source_of(tmp_path, Defaults()), Folder)
    assert isinstance(source_of(tmp_path / "keys.csv", Defaults()), CsvFile)
    assert source_of(tmp_path / "link" / "keys.csv", Defaults()).id == str(tmp_path / "keys.csv")
    for path in (tmp_path / "missing", Path("/dev/null")):
        with pytest.raises(UsageError):
            source_of(path, Defaults())
