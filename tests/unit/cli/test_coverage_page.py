"""The page about the coverage: what is on it, and that nothing gets onto it that others could do harm with."""

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.agents import NOW
from tests.support.coverage import PROVING, gap

from strongroom.audits import Counts, Gap, Proving
from strongroom.fields import plain_text
from strongroom_agent.coverage import FleetCoverage
from strongroom_cli.coverage_page import Bounds, render, share

BOUNDS = Bounds(silent_days=30, max_missing=0)


class Page(HTMLParser):
    """What a browser sees: tags with their attributes, and the words between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Expect that it is the one that was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note words."""
        if "style" not in self.open and data.strip():
            self.words.append(data.strip())


def coverage(**changes: Any) -> FleetCoverage:
    """Return the coverage of 1,000 principals; members and figures as given."""
    figures = dict.fromkeys(Counts.model_fields, 0) | {"principals": 1000, "proven": 4000}
    figures |= {name: changes.pop(name) for name in list(changes) if name in figures}
    members: dict[str, Any] = {
        "authority": "keys.example.org",
        "asked_by": "carol",
        "roster_version": 12,
        "counts": Counts(**figures),
        "covered": 999,
        "unlisted": 0,
        "proving": PROVING,
        "as_of": NOW,
        "until": NOW,
        "pages": 1,
    }
    return FleetCoverage(**(members | changes))


def rendered(*gaps: Gap, counts: dict[str, int] | None = None, **changes: Any) -> str:
    listed: dict[str, int] = {}
    for each in gaps:
        listed[each.state.value] = listed.get(each.state.value, 0) + 1
    return render(coverage(**changes), BOUNDS, gaps, counts or listed)


def words_of(text: str) -> str:
    return " ".join(Page(text).words)


def test_the_headline_says_the_shares_the_prover_and_who_looked_when() -> None:
    """In figures and in words."""
    told = words_of(rendered(stored=1, missing=3, silent=4, covered=996))
    for words in (
        "Key coverage of keys.example.org",
        "As of 2027-01-15 08:00:00Z, read and verified by carol. Roster version 12.",
        "3 keys are missing, unprovable, stale or overdue.",
        "99.6 % 996 of 1,000 without any gap",
        "99.9 % 4,000 of 4,004 that there should be",
        "83.3 % 2 of 12 statements never looked at Oldest look 2027-01-15 07:50:00Z",
        "4 of 1,000 principals not heard of for 30 days.",
    ):
        assert words in told


def test_all_is_well_is_said_only_when_it_is() -> None:
    """The colour follows the bound that was accepted, the words the figures."""
    assert "No key is missing, unprovable, stale or overdue." in words_of(rendered())
    assert "verdict bad" not in rendered()
    one = rendered(stale=1)
    assert "1 key is missing" in words_of(one)
    assert "verdict bad" in one
    accepted = render(coverage(stale=1), Bounds(30, 1), [], {})
    assert "1 key is missing, unprovable, stale or overdue; up to 1 accepted." in words_of(accepted)
    assert '<p class="verdict">' in accepted


@pytest.mark.parametrize(
    ("part", "whole", "said"), [(0, 0, "-"), (999_999, 1_000_000, "99.9 %"), (7, 7, "100.0 %"), (1, 3, "33.3 %")]
)
def test_a_share_is_never_rounded_up(part: int, whole: int, said: str) -> None:
    """Only all of it is 100 %."""
    assert share(part, whole) == said


def test_the_bar_shows_every_state_and_says_so_in_words() -> None:
    """One key among many is wide enough to be seen; the parts fill the bar and do not overlap."""
    page = Page(rendered(proven=1_000_000, unprovable=1, missing=2, stored=3))
    bar = rendered(proven=1_000_000, unprovable=1, missing=2, stored=3).split('class="bar"')[1].split("</svg>")[0]
    parts = [tuple(map(float, each)) for each in re.findall(r'x="([\d.]+)%" width="([\d.]+)%"', bar)]
    assert len(parts) == 4
    assert min(width for _, width in parts) > 0.5
    ends = [at + width for at, width in parts]
    assert ends[-1] == pytest.approx(100, abs=0.01)
    assert [at for at, _ in parts[1:]] == pytest.approx(ends[:-1], abs=0.01)
    assert "Proven 1,000,000; Not yet proven 3; Unprovable 1; Missing 2" in page.words
    drawn = {attributes.get("role") for tag, attributes in page.tags if tag == "svg"}
    assert drawn == {"img", None}


def test_a_fleet_without_anything_is_a_page_too() -> None:
    """No division by nothing."""
    nothing = Proving(size=0, backlog=0, oldest_at=None)
    told = words_of(rendered(principals=0, proven=0, covered=0, proving=nothing))
    assert "No keys" in told
    assert "No look yet" in told
    assert told.endswith("Gaps None.")


def test_gaps_stand_under_their_state_and_say_how_many_more() -> None:
    """Every cell that says something."""
    gaps = [
        gap("host-1", "unprovable", code="blob_invalid"),
        gap("host-2", "missing"),
        gap("host-3", "missing", None),
    ]
    text = rendered(*gaps, counts={"unprovable": 1, "missing": 9})
    told = words_of(text)
    assert "Unprovable: 1 Stored, and cannot be opened or is not what was accepted." in told
    assert f"host-1 disk {gaps[0].record} 2027-01-15 07:59:00Z blob_invalid" in told
    assert "Missing: 9; the first 2 are shown" in told
    assert told.endswith("7 more: strongroom coverage --csv FILE names all.")
    assert [tag for tag, _ in Page(text).tags].count("table") == 2


def test_the_page_needs_nothing_and_runs_nothing() -> None:
    """No script, no link, nothing from anywhere; a browser is told to load nothing either."""
    text = rendered(gap("host-1"))
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object", "a", "form"} & {tag for tag, _ in page.tags}
    assert not {"src", "href", "style"} & {name for _, attributes in page.tags for name in attributes}
    assert not re.search(r"https?:|url\((?!#)|@import", text)
    assert ("meta", "default-src 'none'; style-src 'unsafe-inline'") in [
        (tag, attributes.get("content")) for tag, attributes in page.tags
    ]
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_the_drawings_are_well_formed() -> None:
    """Each can be cut out and kept."""
    for drawing in re.findall(r"<svg.*?</svg>", rendered(missing=1), re.DOTALL):
        ET.fromstring(drawing)  # noqa: S314  our own text


def is_name(text: str) -> bool:
    try:
        plain_text(text)
    except ValueError:
        return False
    return True


hostile = st.one_of(
    st.text(min_size=1, max_size=128).filter(is_name),
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            "'\"><img src=x onerror=alert(1)>",
            "</td></tr></table><h1>All is well</h1>",
            "\u202egpj.exe",
            "&lt;b&gt;",
            "--><svg onload=x>",
            "\u200b\u2066",
        ]
    ),
)


@given(name=hostile)
def test_no_name_changes_the_page(name: str) -> None:
    """Whatever a host calls its key: the same tags with the same attributes, and its name as words."""
    plain, given_ = rendered(gap("host-1", name="x", record=None)), rendered(gap("host-1", name=name, record=None))
    assert Page(given_).tags == Page(plain).tags
    assert all(each.isprintable() or each == "\n" for each in given_)
    shown = "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in name).strip()
    assert not shown or shown in Page(given_).words
