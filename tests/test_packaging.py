"""The distribution as users get it: a wheel built from the sdist, installed far from this tree."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = (ROOT / "shared", ROOT / "services")
DATA = (".sql", ".typed", ".json", ".in")


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """Run a command that must succeed, with nothing of this test run's environment but PATH."""
    result = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def packages() -> list[str]:
    """Every package of the tree, subpackages included, as it is imported."""
    return sorted(
        ".".join(file.parent.relative_to(source).parts)
        for source in SOURCES
        for file in source.rglob("__init__.py")
        if "__pycache__" not in file.parts
    )


def shipped() -> set[str]:
    """Every file of the tree that belongs into the wheel."""
    return {
        str(file.relative_to(source))
        for source in SOURCES
        for file in source.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    # Without sdist or wheel being named, `build` makes the wheel from the unpacked sdist.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("strongroom-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and of this tree nothing."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    # What it depends on is lent from here; a path in a .pth file is taken without the .pth files that lie there.
    (site_packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = ("install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", wheel)
    run(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", *command, folder=folder)
    return folder / "bin"


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    """Whatever lies in shared/ and services/ is shipped, SQL and markers too; beside it only the metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - metadata == shipped()
    assert all(name.startswith("strongroom") for name in names)
    assert {name.partition("/")[2] for name in metadata} >= {
        "METADATA",
        "RECORD",
        "entry_points.txt",
        "licenses/LICENSE",
    }
    assert "strongroom/sql/migrations/0001_initial.sql" in names


def test_the_packages_hold_code_and_data_and_no_strays() -> None:
    """In shared/ and services/ there is nothing that a build would ship by accident."""
    tops = {path.name for source in SOURCES for path in source.iterdir() if path.name != "__pycache__"}
    assert all(name.startswith("strongroom") for name in tops), tops
    assert {Path(name).suffix for name in shipped()} <= {".py", *DATA}


def test_every_package_is_typed_and_imports_from_the_wheel(installed: Path) -> None:
    """Each package of the tree imports from the environment, not from the tree, and each top one is typed."""
    script = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    files = run(installed / "python", "-c", script, *packages(), folder=installed).split()
    site_packages = next(installed.parent.glob("lib/python*/site-packages"))
    assert [Path(file) for file in files] == [
        site_packages / name.replace(".", "/") / "__init__.py" for name in packages()
    ]
    for name in {name.partition(".")[0] for name in packages()}:
        assert (site_packages / name / "py.typed").exists(), name


def test_every_console_script_runs(installed: Path) -> None:
    """Each script of pyproject.toml is there and runs; the command knows its version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for script in project["scripts"]:
        assert "Usage: strongroom" in run(installed / script, "--help", folder=installed)
    assert project["version"] in run(installed / "strongroom", "--version", folder=installed)


def test_the_migrations_of_the_wheel_can_be_read(installed: Path) -> None:
    """The installed program finds its SQL: every migration and every query of the tree."""
    script = (
        "from strongroom.schema import load_queries, shipped_migrations\n"
        "queries = [load_queries(name) for name in ('escrow', 'recovery', 'log', 'follower')]\n"
        "print(len(shipped_migrations()), *map(len, queries))"
    )
    counts = [int(word) for word in run(installed / "python", "-c", script, folder=installed).split()]
    assert counts[0] == len(list((ROOT / "shared/strongroom/sql/migrations").glob("*.sql")))
    assert all(count > 3 for count in counts[1:])


def test_the_sdist_holds_no_local_state(built: Path) -> None:
    """Sources, tests, deployment and documents, and nothing that this machine has made."""
    (sdist,) = built.glob("strongroom-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {Path(name).relative_to(Path(name).parts[0]) for name in archive.getnames()}
    tops = {path.parts[0] for path in names if path.parts}
    allowed = {"shared", "services", "tests", "deploy", "README.md", "ARCHITECTURE.md", "SPEC.md", "LICENSE"}
    assert tops <= allowed | {"Makefile", "PKG-INFO", "pyproject.toml", ".gitignore"}
    assert not [path for path in names if {"__pycache__", ".local", ".venv"} & set(path.parts)]
