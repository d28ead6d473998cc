"""`strongroom broker account`: where the password goes, and what is refused."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from strongroom.errors import UsageError
from strongroom_cli.broker import account

URL = "amqps://mq.example:5671/strongroom"


def run(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(account, [str(each) for each in arguments])


def test_the_password_goes_into_the_private_file_and_nowhere_else(tmp_path: Path) -> None:
    """The document holds a hash, fresh at each run; JSON for programs says its kind besides."""
    first, second = tmp_path / "1", tmp_path / "2"
    told = run("pc-1", "--url", URL, "--url-file", first)
    again = run("pc-1", "--url", URL, "--url-file", second, "-o", "json")
    assert first.read_text() != second.read_text()
    assert first.stat().st_mode & 0o777 == 0o600
    password = first.read_text().removeprefix("amqps://pc-1:").removesuffix("@mq.example:5671/strongroom\n")
    assert len(password) == 32
    assert password not in told.output
    (user,) = json.loads(told.output)["users"]
    assert user["password_hash"]
    document = json.loads(again.output)
    assert (document.pop("schema"), document.pop("kind")) == (1, "account")
    assert document.keys() == json.loads(told.output).keys()


def test_an_account_for_a_certificate_has_no_password(tmp_path: Path) -> None:
    """Neither in the document nor in the file, which is optional then."""
    told = run("pc-1", "--external", "--url", URL, "--url-file", tmp_path / "url")
    assert json.loads(told.output)["users"][0]["password_hash"] == ""
    assert (tmp_path / "url").read_text() == f"{URL}\n"
    assert json.loads(run("pc-1", "--external").output) == json.loads(told.output)


def test_a_url_file_that_exists_is_not_replaced(tmp_path: Path) -> None:
    """It may hold the only copy of a password that is in use; no document is printed."""
    path = tmp_path / "url"
    path.write_text("kept")
    told = run("pc-1", "--url", URL, "--url-file", path)
    assert isinstance(told.exception, UsageError)
    assert (told.output, path.read_text()) == ("", "kept")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mq.example",
        "amqp://mq.example/strongroom",
        "amqps://mq.example",
        "amqps://mq.example/",
        "amqps:///strongroom",
        "amqps://u:p@mq.example/strongroom",
        "amqps://mq.example/strongroom?auth=x",
        "amqps://mq.example/strong room",
        "amqps://mq.example/strongroom\n",
    ],
)
def test_a_url_that_is_no_plain_address_is_refused(url: str, tmp_path: Path) -> None:
    """Nothing is written."""
    told = run("pc-1", "--url", url, "--url-file", tmp_path / "url")
    assert isinstance(told.exception, UsageError)
    assert told.output == ""
    assert not (tmp_path / "url").exists()


@pytest.mark.parametrize(
    "arguments", [("pc-1",), ("pc-1", "--url", URL), ("pc-1", "--url-file", "x", "--external")]
)
def test_a_password_needs_an_address_and_a_file(arguments: tuple[str, ...]) -> None:
    """Both or neither; neither only with a certificate."""
    assert isinstance(run(*arguments).exception, UsageError)


@pytest.mark.parametrize("name", ["operator", "escrow", "fleet", "events", "A", "a.c"])
def test_a_name_that_no_sender_may_have_is_refused(name: str, tmp_path: Path) -> None:
    """Nothing is written, and nothing printed."""
    told = run(name, "--url", URL, "--url-file", tmp_path / "url")
    assert isinstance(told.exception, UsageError)
    assert told.output == ""
    assert not (tmp_path / "url").exists()
