"""Files that options and variables name: what is wrong with one is said by its name, never by its content."""

from pathlib import Path

import pytest

from strongroom.errors import ConfigurationInvalid
from strongroom_cli.options import read_text
from strongroom_cli.settings import DatabaseSettings

CONTENT = b"postgresql://canary\xff:canary@host/"


def test_a_file_that_is_no_text_is_refused_by_the_option_and_its_path(tmp_path: Path) -> None:
    """Not UTF-8, or not there: the option and the path, and nothing of what was read."""
    path = tmp_path / "url"
    path.write_bytes(CONTENT)
    for wrong, words in ((path, "is no text"), (tmp_path / "none", "No such file")):
        with pytest.raises(ConfigurationInvalid, match=f"--broker-url-file: {words}.*{wrong.name}") as caught:
            read_text("--broker-url-file", wrong)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_url_file_in_the_environment_that_is_no_text_is_refused_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable and the path, and nothing of what was read."""
    path = tmp_path / "url"
    path.write_bytes(CONTENT)
    monkeypatch.delenv("STRONGROOM_DATABASE_URL", raising=False)
    monkeypatch.setenv("STRONGROOM_DATABASE_URL_FILE", str(path))
    with pytest.raises(ConfigurationInvalid, match=r"STRONGROOM_DATABASE_URL_FILE: is no text") as caught:
        DatabaseSettings.load()
    assert "canary" not in str(caught.value)
