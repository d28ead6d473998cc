"""How lengths of time and other people's words are shown."""

import pytest

from strongroom_cli.output import lasting, legible


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
