"""Files that options and variables name: what is wrong with one is said by its name, never by its content."""

from pathlib import Path

import pytest

from strongroom.errors import ConfigurationInvalid, UsageError
from strongroom_agent.home import BrokerLogin
from strongroom_cli.options import broker_login, read_text
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


def test_a_login_of_ones_own_is_read_from_the_files_that_are_named(tmp_path: Path) -> None:
    """URL, certificate and key, each optional but for a certificate without its key."""
    files = [tmp_path / name for name in ("url", "certificate", "key")]
    for file in files:
        file.write_text(f"{file.name}\n")
    url, certificate, key = files
    assert broker_login(None, None, None) is None
    assert broker_login(url, None, None) == BrokerLogin(url="url")
    assert broker_login(None, certificate, key) == BrokerLogin(certificate=b"certificate\n", key=b"key\n")
    for half in ((certificate, None), (None, key)):
        with pytest.raises(UsageError, match="go together"):
            broker_login(url, *half)
