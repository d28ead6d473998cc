"""How lengths of time and other people's words are shown."""

import pytest
import rich_click as click

from strongroom_cli.output import Output, lasting, legible


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3_600, "1 h"),
        (3_601, "1 h 1 s"),
        (4_000, "1 h 6 min"),
        (86_399, "23 h 59 min"),
        (7 * 86_400, "7 d"),
        (8 * 86_400 + 3_660, "8 d 1 h"),
    ],
)
def test_a_length_of_time_is_shown_in_its_two_largest_units(seconds: int, shown: str) -> None:
    """Nothing is rounded up, and nothing is negative."""
    assert lasting(seconds) == shown


@pytest.mark.parametrize("text", ["disk/root", "Schlüssel für Müller", "鍵", "a b"])
def test_words_stay_as_they_are(text: str) -> None:
    """Of every script."""
    assert legible(text) == text


@pytest.mark.parametrize(
    ("character", "shown"),
    [
        ("\u202e", "\\u202e"),
        ("\u200b", "\\u200b"),
        ("\u2028", "\\u2028"),
        ("\x1b", "\\u001b"),
        ("\U000e0041", "\\ue0041"),
    ],
)
def test_what_a_terminal_would_act_on_or_not_show_is_escaped(character: str, shown: str) -> None:
    """Direction, no width, line ends, control characters, tags."""
    assert legible(f"a{character}b") == f"a{shown}b"


RECORD = "01a20743-fecd-702f-bc18-d4b6ec3ddb8d"
COLUMNS = ("name", "state", "stored", "proven", "record")
ROWS = (
    ("disk", "proven", "2026-11-23 07:17:06Z", "2026-11-23 07:34:17Z", RECORD),
    ("mail", "stored", "2026-11-23 07:30:40Z", "-", RECORD),
)


def shown_by(rows: tuple[tuple[str, ...], ...], capsys: pytest.CaptureFixture[str]) -> list[str]:
    Output(json=False).table(COLUMNS, rows)
    return [line.rstrip() for line in click.unstyle(capsys.readouterr().out).splitlines()]


def test_a_table_too_wide_for_the_terminal_gets_a_line_a_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids, times and states stay in one piece, and what says nothing is left out."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    first = ["name    disk", "state   proven", "stored  2026-11-23 07:17:06Z", "proven  2026-11-23 07:34:17Z"]
    second = ["name    mail", "state   stored", "stored  2026-11-23 07:30:40Z", f"record  {RECORD}"]
    assert shown_by(ROWS, capsys) == [*first, f"record  {RECORD}", "", *second]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_table_that_fits_and_one_for_a_pipe_have_a_line_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, terminal: bool
) -> None:
    """A pipe takes any width."""
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200" if terminal else "40")
    lines = shown_by(ROWS, capsys)
    assert [line.split()[0] for line in lines] == ["name", "disk", "mail"]
