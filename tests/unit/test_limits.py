"""The limits are those that SPEC section 11 prints, one for one."""

import re
from pathlib import Path

from strongroom import limits

SPEC = (Path(__file__).parents[2] / "SPEC.md").read_text(encoding="utf-8")
SECTION = SPEC.partition("## 11. Limits")[2].partition("\n## ")[0]


def _numbers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"[0-9][0-9,]*[0-9]|[0-9]", text)]


def _specified() -> dict[str, int]:
    """Read the table: names in the first column stand in the order of the numbers in the second."""
    specified: dict[str, int] = {}
    for row in re.findall(r"^\| (`.*) \| (.*) \|$", SECTION, re.MULTILINE):
        names = [name for name in re.findall(r"`([A-Z_]+)`", " ".join(row)) if name != "PRINCIPAL"]
        specified.update(zip(names, _numbers(row[1]) if names else [], strict=True))
    return specified


def test_every_limit_of_the_specification_has_its_value() -> None:
    """A limit cannot change in the code or in the specification alone."""
    specified = _specified()
    assert len(specified) == 45
    assert specified == {name: getattr(limits, name) for name in specified}


def test_every_limit_in_the_code_is_specified() -> None:
    """What section 11 does not list stands in the text of section 1."""
    named = {name for name in vars(limits) if name.isupper()}
    assert named - _specified().keys() == {"INTEGER_MAX"}
    assert re.search(r"integers outside\s±\(2\^53 \S 1\)", SPEC)
    assert limits.INTEGER_MAX == 2**53 - 1


def test_a_full_body_fits_into_an_envelope() -> None:
    """Base64 of the largest body leaves room for the type and 16 signatures."""
    payload = -(-limits.BODY_BYTES_MAX // 3) * 4
    signatures = limits.SIGNATURES_MAX * len('{"keyid":"","sig":""},' + "0" * 32 + "0" * 88)
    assert payload + signatures + 512 <= limits.ENVELOPE_BYTES_MAX
