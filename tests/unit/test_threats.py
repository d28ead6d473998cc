"""The chapter on threats names tests; they exist, and no attack is left out of it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHAPTER = (ROOT / "deploy" / "THREATS.md").read_text()
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def functions_of(file: Path) -> set[str]:
    """Return the names of the test functions of a file."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = {node.name for node in ast.parse(file.read_text()).body if isinstance(node, functions)}
    return {name for name in names if name.startswith("test_")}


def test_every_test_that_the_chapter_names_exists() -> None:
    """A claim there rests on a test that can be run under the name it gives."""
    named = _NAMED.findall(CHAPTER)
    assert len(named) > 50
    assert [f"{file}::{name}" for file, name in named if name not in functions_of(ROOT / file)] == []


def test_every_mention_of_a_test_file_is_a_name_that_can_be_checked() -> None:
    """No test is named in a form that the check above would pass over."""
    assert CHAPTER.count("::") == len(_NAMED.findall(CHAPTER))


def test_every_attack_is_in_the_chapter() -> None:
    """Whoever adds an attack says there what it shows."""
    named = set(_NAMED.findall(CHAPTER))
    files = sorted((ROOT / "tests" / "attacks").glob("test_*.py"))
    attacks = [(f"tests/attacks/{file.name}", name) for file in files for name in sorted(functions_of(file))]
    assert attacks
    assert [attack for attack in attacks if attack not in named] == []
