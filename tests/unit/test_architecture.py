"""What the project says of its own modules is so."""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "shared", ROOT / "services")
NOT_LISTED = {
    "strongroom.database_errors",  # maps the driver's exceptions, so it imports the driver
    "strongroom_cli.findings",  # takes what the broker's package found, by its types
}


def modules() -> dict[str, Path]:
    """Return every module of the product by its name."""
    return {
        ".".join(path.relative_to(source).with_suffix("").parts): path
        for source in SOURCES
        for path in source.rglob("*.py")
    }


def test_every_module_that_calls_itself_pure_is_held_to_it() -> None:
    """Import contracts list what says in its docstring that it is pure, and nothing that is not there."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [held] = [set(each["source_modules"]) for each in contracts if each["name"].startswith("What decides")]
    docstrings = {name: ast.get_docstring(ast.parse(path.read_text())) or "" for name, path in modules().items()}
    pure = {name for name, text in docstrings.items() if re.search(r"\bPure\.", text)}
    assert len(pure) > 40
    assert pure - NOT_LISTED - held == set()
    assert held - docstrings.keys() == set()


def test_the_house_names_files_that_are_there() -> None:
    """Every file and package that ARCHITECTURE.md draws is below the folder under which it is drawn."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    house = text.split("```")[1]
    top = folder = ROOT
    drawn = 0
    for line in house.strip().splitlines():
        if found := re.match(r"(\w[\w/]*/)(\s|$)", line):
            top = folder = ROOT / found[1]
        elif found := re.match(r"  (\w+/)\s{2,}", line):
            folder = top / found[1]
        elif found := re.match(r"    (\w+/)", line):
            folder = ROOT / "services/strongroom_recovery" / found[1]
        elif re.match(r"  \w", line):
            folder = top
        assert folder.is_dir(), line
        for name in re.findall(r"\b\w+\.py\b", line):
            drawn += 1
            assert (folder / name).is_file(), f"{name}: {line}"
    assert drawn > 100
