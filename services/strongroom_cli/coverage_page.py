"""The coverage of a fleet as one page of HTML that needs nothing else: to be shown, printed and kept. Pure.

No script, no font, no image from anywhere. Whatever others have written is escaped, and shows its invisible
characters. Colours are told apart by people who see few of them, and none carries a meaning without words.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Final

from strongroom_cli.output import legible, when

if TYPE_CHECKING:
    from strongroom.audits import Gap
    from strongroom_agent.coverage import FleetCoverage

# The worst first, as they are shown; what each means, for people.
STATES: Final = {
    "unprovable": "stored, and cannot be opened or is not what was accepted",
    "missing": "expected, and was never escrowed",
    "overdue": "somebody else was given the key, and it was not replaced in time",
    "stale": "its owner says that the key in use is another one",
    "disclosed": "somebody else was given the key; it is to be replaced",
    "stored": "stored, and not yet proven",
    "silent": "not heard of for long",
}

# In the order of the bar: from what is well to what is not there at all.
_KEYS: Final = ("proven", "stored", "disclosed", "overdue", "stale", "unprovable", "missing")
_MEANINGS: Final = {"proven": "opened by the prover, and is the key that was handed over", **STATES}
_COLUMNS: Final = (("Principal", ""), ("Key", ""), ("Record", "id"), ("Since", "time"), ("Code", "code"))

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #16202a; --soft: #55636f; --paper: #fff; --card: #f4f6f8; --line: #d5dce2;
  --proven: #0072b2; --stored: #9fb0bd; --disclosed: #cc79a7; --overdue: #e69f00; --stale: #f0e442;
  --unprovable: #d55e00; --missing: #16202a; --ring: #dfe5ea; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8edf1; --soft: #a3b1bc; --paper: #10161b; --card: #1a2229;
  --line: #33404a; --proven: #3d9fe0; --stored: #6d7f8c; --missing: #e8edf1; --ring: #2b363f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .75rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p { margin: .25rem 0; }
.soft { color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
.verdict { border-left: .4rem solid var(--proven); background: var(--card); padding: .75rem 1rem; margin: 1.25rem 0;
  font-size: 1.1rem; font-weight: 600; }
.verdict.bad { border-color: var(--unprovable); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem; }
.tile { background: var(--card); border-radius: .5rem; padding: 1rem; display: flex; gap: 1rem;
  align-items: center; }
.tile svg { flex: none; }
.tiles + p { margin-top: .75rem; }
.figure { font-size: 1.7rem; font-weight: 700; line-height: 1.15; }
.bar { display: block; width: 100%; height: 2.75rem; border-radius: .3rem; }
.legend { list-style: none; margin: .9rem 0 0; padding: 0; display: grid; gap: .5rem 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.legend li { display: grid; grid-template-columns: 1rem 1fr auto; gap: .6rem; align-items: baseline; }
.legend b { font-variant-numeric: tabular-nums; }
.mark { width: 1rem; height: 1rem; align-self: start; margin-top: .25rem; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; table-layout: fixed; }
th:nth-child(1) { width: 24%; } th.id { width: 19rem; } th.time { width: 12rem; } th.code { width: 12rem; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td { overflow-wrap: anywhere; }
td.id { font-family: ui-monospace, monospace; font-size: .8rem; }
td.time { white-space: nowrap; }
@media (max-width: 45rem) {
  thead { position: absolute; clip-path: inset(50%); }
  table, tbody, tr, td { display: block; }
  tr { border-bottom: 1px solid var(--line); padding: .5rem 0; }
  td { border: 0; padding: .1rem 0 .1rem 6rem; position: relative; }
  td::before { content: attr(data-label); position: absolute; left: 0; color: var(--soft); font: .85rem system-ui; }
  td.none { display: none; }
}
@media print { main { max-width: none; padding: 0; } .tile, .verdict { border: 1px solid var(--line); }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } tr, .tile { break-inside: avoid; }
  h3 { break-after: avoid; } thead { display: table-header-group; } }
"""

_HATCH: Final = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="var(--paper)"/><rect width="3" height="6" fill="var(--missing)"/>'
    "</pattern></defs>"
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What was asked for: after how many days a principal is silent, and how large a gap is accepted."""

    silent_days: int
    max_missing: int


def render(found: "FleetCoverage", bounds: Bounds, gaps: "Sequence[Gap]", counts: Mapping[str, int]) -> str:
    """Return the page.

    Arguments: `gaps` to show, those of one state together; `counts`, by state, how many there are of those that are
    shown some of.
    """
    return "".join(_page(found, bounds, gaps, counts))


def share(part: int, whole: int) -> str:
    """Return a share in percent, rounded down to a tenth, so that only all of it is 100 %; a dash of nothing."""
    return f"{part * 1000 // whole / 10:.1f} %" if whole else "-"


def _page(
    found: "FleetCoverage", bounds: Bounds, gaps: "Sequence[Gap]", counts: Mapping[str, int]
) -> Iterator[str]:
    title = f"Key coverage of {_text(found.authority)}"
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f'<meta name="referrer" content="no-referrer"><title>{title}</title><style>{_STYLE}</style></head>\n'
    yield f"<body><main>\n<header><h1>{title}</h1>"
    yield f'<p class="soft">As of {when(found.as_of)}, read and verified by {_text(found.asked_by)}. '
    yield f"Roster version {found.roster_version}.</p></header>\n"
    yield _verdict(found, bounds)
    yield from _tiles(found, bounds)
    yield from _bar(found)
    yield from _tables(gaps, counts)
    yield "</main></body></html>\n"


def _verdict(found: "FleetCoverage", bounds: Bounds) -> str:
    failing, accepted = found.failing, f"; up to {bounds.max_missing:,} accepted" if bounds.max_missing else ""
    if not failing:
        words = "No key is missing, unprovable, stale or overdue"
    else:
        noun = "key is" if failing == 1 else "keys are"
        words = f"{failing:,} {noun} missing, unprovable, stale or overdue"
    kind = "verdict bad" if failing > bounds.max_missing else "verdict"
    return f'<p class="{kind}">{words}{accepted}.</p>\n'


def _tiles(found: "FleetCoverage", bounds: Bounds) -> Iterator[str]:
    principals, silent, proving = found.counts.principals, found.counts.silent, found.proving
    yield '<section class="tiles" aria-label="Summary">\n'
    yield _tile(
        "Principals fully covered",
        found.covered,
        principals,
        f"{found.covered:,} of {principals:,} without any gap",
    )
    keys = found.records + found.counts.missing
    yield _tile(
        "Keys proven", found.counts.proven, keys, f"{found.counts.proven:,} of {keys:,} that there should be"
    )
    looked = proving.size - proving.backlog
    never = f"{proving.backlog:,} of {proving.size:,} statements never looked at"
    oldest = f"Oldest look {when(proving.oldest_at)}" if proving.oldest_at is not None else "No look yet"
    yield _tile("Prover has looked at", looked, proving.size, f"{never}<br>{oldest}")
    yield '</section>\n<p class="soft">'
    yield f"{silent:,} of {principals:,} principals not heard of for {bounds.silent_days} days.</p>\n"


def _tile(title: str, part: int, whole: int, words: str) -> str:
    filled = part / whole * 100 if whole else 0
    ring = '<circle cx="21" cy="21" r="15.9155" fill="none" stroke-width="6"'  # 100 long
    return (
        f'<div class="tile"><svg width="84" height="84" viewBox="0 0 42 42" role="img" aria-label="{title}: '
        f'{share(part, whole)}">{ring} stroke="var(--ring)"/>{ring} stroke="var(--proven)" '
        f'stroke-dasharray="{filled:.3f} {100 - filled:.3f}" transform="rotate(-90 21 21)"/></svg>'
        f'<div><p class="soft">{title}</p><p class="figure">{share(part, whole)}</p>'
        f'<p class="soft">{words}</p></div></div>\n'
    )


def _bar(found: "FleetCoverage") -> Iterator[str]:
    figures = found.counts.model_dump()
    total = sum(figures[state] for state in _KEYS)
    told = "; ".join(f"{_name(state)} {figures[state]:,}" for state in _KEYS if figures[state])
    yield '<h2 id="keys">Keys by state</h2>\n<svg class="bar" role="img" aria-labelledby="keys bar-words">'
    yield f'<title id="bar-words">{told or "No keys"}</title>{_HATCH}'
    yield '<rect width="100%" height="100%" fill="var(--ring)"/>'
    at = 0.0
    for state, width in _widths({state: figures[state] for state in _KEYS if figures[state]}, total):
        yield f'<rect x="{at:.3f}%" width="{width:.3f}%" height="100%" fill="{_fill(state)}"/>'
        if at:
            yield f'<rect x="{at:.3f}%" width="1" height="100%" fill="var(--paper)"/>'
        at += width
    yield '</svg>\n<ul class="legend">\n'
    for state in _KEYS:
        mark = f'<rect width="100%" height="100%" fill="{_fill(state)}"/>'
        yield f'<li><svg class="mark" aria-hidden="true">{mark}</svg>'
        yield f'<span>{_name(state)}<br><span class="soft">{_MEANINGS[state]}</span></span>'
        yield f"<b>{figures[state]:,}</b></li>\n"
    yield "</ul>\n"


def _widths(figures: Mapping[str, int], total: int) -> Iterator[tuple[str, float]]:
    """Give each part's width in percent: what is there is never too narrow to be seen."""
    least = 1.2
    widths = {state: max(least, count / total * 100) for state, count in figures.items()}
    over = sum(widths.values()) - 100
    room = sum(width - least for width in widths.values())
    for state, width in widths.items():
        yield state, width - over * (width - least) / room if room else width


def _name(state: str) -> str:
    return "Not yet proven" if state == "stored" else state.capitalize()


def _fill(state: str) -> str:
    return "url(#hatch)" if state == "missing" else f"var(--{state})"


def _tables(gaps: "Sequence[Gap]", counts: Mapping[str, int]) -> Iterator[str]:
    yield "<h2>Gaps</h2>\n"
    if not gaps:
        yield "<p>None.</p>\n"
    for state, of_state in groupby(gaps, key=lambda gap: gap.state.value):
        rows = list(of_state)
        meaning = _MEANINGS[state]
        shown = f"; the first {len(rows):,} are shown" if len(rows) < counts[state] else ""
        cells = [_cells(gap) for gap in rows]
        shown_columns = [at for at in range(len(_COLUMNS)) if any(row[at] for row in cells)]
        head = "".join(f'<th scope="col" class="{_COLUMNS[at][1]}">{_COLUMNS[at][0]}</th>' for at in shown_columns)
        yield f"<h3>{_name(state)}: {counts[state]:,}{shown}</h3>\n"
        yield f'<p class="soft">{meaning[0].upper()}{meaning[1:]}.</p>\n'
        yield f"<table><thead><tr>{head}</tr></thead><tbody>\n"
        yield from (f"<tr>{''.join(_cell(at, row[at]) for at in shown_columns)}</tr>\n" for row in cells)
        yield "</tbody></table>\n"
    if left := sum(counts.values()) - len(gaps):
        yield f'<p class="soft">{left:,} more: <code>strongroom coverage --csv FILE</code> names all.</p>\n'


def _cells(gap: "Gap") -> tuple[str | None, ...]:
    return gap.principal, gap.name, gap.record, None if gap.since is None else when(gap.since), gap.code


def _cell(at: int, text: str | None) -> str:
    label, kind = _COLUMNS[at]
    kind = kind if text else f"{kind} none"
    return f'<td class="{kind}" data-label="{label}">{_text(text) if text else "-"}</td>'


def _text(text: str) -> str:
    return escape(legible(text))
