import errno
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.errors import Busy, ConfigurationInvalid, TransientError
from strongroom_agent.enrolment import Enrolled
from strongroom_agent.home import BrokerLogin, Config, Home, Role, default_home, write_atomically
from strongroom_agent.identity import create_officer_home

CONFIG = Config(
    name="laptop-0417",
    role=Role.PRINCIPAL,
    key_id="0" * 32,
    public_key=b"p" * 32,
    authority="vault.example",
    root_key=b"r" * 32,
    broker_url='amqps://fleet:p"w\\é@broker.example/strongroom',
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return Home(path, CONFIG).write_config(CONFIG)


def test_a_configuration_comes_back_as_it_was_written(home: Home) -> None:
    """Quotes, backslashes and letters beyond ASCII survive; keys come back as bytes."""
    assert Home.open(home.path).config == CONFIG


def test_a_repr_of_a_configuration_shows_no_broker_url(home: Home) -> None:
    """The URL may hold a password."""
    assert "fleet" not in repr(home)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("broker_urll = 'x'", "broker_urll"),
        ("broker_url = 5", "broker_url"),
        ("broker_url = ''", "broker_url"),
        ("root_key = 'not base64!'", "key"),
        ("role = 'king'", "role"),
        ("format = 'strongroom-home/v2'", "format"),
        ("[table]", "table"),
        ("= x", "TOML"),
    ],
)
def test_a_wrong_configuration_is_refused_by_the_name_of_what_is_wrong(home: Home, line: str, named: str) -> None:
    """Nothing unknown is passed over."""
    member = line.partition(" = ")[0]
    kept = [text for text in CONFIG.to_toml().decode().splitlines() if not text.startswith(f"{member} = ")]
    write_atomically(home.path / "config.toml", "\n".join([*kept, line]).encode())
    with pytest.raises(ConfigurationInvalid, match=named):
        Home.open(home.path)


def test_a_configuration_without_name_is_refused(home: Home) -> None:
    """A missing member is named."""
    content = b"\n".join(line for line in CONFIG.to_toml().splitlines() if not line.startswith(b"name"))
    write_atomically(home.path / "config.toml", content)
    with pytest.raises(ConfigurationInvalid, match="name: is missing"):
        Home.open(home.path)


# ---- a login of its own ----

LOGIN = BrokerLogin(url="amqps://own:hidden@broker.example/strongroom", certificate=b"a certificate", key=b"hidden")


def test_a_login_of_its_own_is_kept_in_the_home(home: Home) -> None:
    """URL, certificate and key replace the invitation's login; the key is private, and none of it is shown."""
    (home.path / "keys").mkdir(mode=0o700)
    home.write_config(LOGIN.keep(home.path, CONFIG))
    opened = Home.open(home.path)
    assert opened.config.broker_url == LOGIN.url
    files = opened.broker_certificate()
    assert files is not None
    assert [file.read_bytes() for file in files] == [LOGIN.certificate, LOGIN.key]
    assert stat.S_IMODE(files[1].stat().st_mode) == 0o600
    assert "hidden" not in repr(LOGIN) + repr(opened)


def test_a_login_by_url_alone_leaves_the_certificate_as_it_was(home: Home) -> None:
    """What is not given is not changed; a home without a certificate has none."""
    changed = BrokerLogin(url="amqps://own@broker.example/strongroom").keep(home.path, CONFIG)
    assert changed == replace(CONFIG, broker_url="amqps://own@broker.example/strongroom")
    assert home.broker_certificate() is None


@pytest.mark.parametrize("member", ["broker_certificate", "broker_key"])
def test_a_certificate_without_its_key_is_refused(home: Home, member: str) -> None:
    """Either alone would fall back to the password without a word."""
    one = replace(CONFIG, broker_certificate="x.pem"), replace(CONFIG, broker_key="x.key")
    half = home.write_config(one[member == "broker_key"])
    with pytest.raises(ConfigurationInvalid, match="go together"):
        half.broker_certificate()


def test_a_brokers_key_that_others_may_read_or_that_is_gone_is_refused(home: Home) -> None:
    """By its path."""
    (home.path / "keys").mkdir(mode=0o700)
    home = home.write_config(LOGIN.keep(home.path, CONFIG))
    key = home.path / "keys" / "broker.key"
    key.chmod(0o640)
    with pytest.raises(ConfigurationInvalid, match=r"broker\.key: others may use it"):
        home.broker_certificate()
    key.unlink()
    with pytest.raises(ConfigurationInvalid, match=r"broker\.key: No such file"):
        home.broker_certificate()


def test_a_folder_without_configuration_is_no_home(tmp_path: Path) -> None:
    """The error says what to do."""
    with pytest.raises(ConfigurationInvalid) as caught:
        Home.open(tmp_path)
    assert "enrol" in str(caught.value.hint)


@pytest.mark.parametrize("name", [".", "config.toml"])
@pytest.mark.parametrize("bit", [0o040, 0o020, 0o010, 0o004, 0o002, 0o001])
def test_a_home_that_others_may_use_is_refused(home: Home, name: str, bit: int) -> None:
    """No permission bit for group or others is accepted, on the folder or on the configuration."""
    target = home.path / name
    target.chmod(stat.S_IMODE(target.stat().st_mode) | bit)
    with pytest.raises(ConfigurationInvalid, match="others may use it") as caught:
        Home.open(home.path)
    assert str(caught.value.hint).startswith("chmod ")


def test_a_home_of_another_user_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs this must own the home."""
    monkeypatch.setattr(os, "geteuid", lambda: home.path.stat().st_uid + 1)
    with pytest.raises(ConfigurationInvalid, match="belongs to another user"):
        Home.open(home.path)


def test_a_held_home_is_busy_for_everybody_else_until_it_is_let_go(home: Home) -> None:
    """The second holder is told at once, also within one process; afterwards the home is free again."""
    with home.lock(), pytest.raises(Busy), home.lock():
        pass
    with home.lock():
        pass


def test_a_lock_is_not_followed_through_a_symbolic_link(home: Home, tmp_path: Path) -> None:
    """Nobody can make this process open another file."""
    (home.path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationInvalid, match="lock"), home.lock():
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_place_that_is_no_folder_is_no_home(tmp_path: Path) -> None:
    """Neither to open nor to make one."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationInvalid, match="no Strongroom home"):
        Home.open(tmp_path / "file")
    with pytest.raises(ConfigurationInvalid):
        create_officer_home(tmp_path / "file" / "home", "officer-1", passphrase=None)


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, TransientError), (errno.EIO, TransientError), (errno.EACCES, ConfigurationInvalid)],
)
def test_what_the_operating_system_refuses_is_told_in_our_words(
    home: Home, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    """A full disk is worth another try; a forbidden place is not. The configuration stays as it was."""

    def refuse(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(error, match=os.strerror(number)) as caught:
            home.write_config(replace(CONFIG, name="other"))
    assert type(caught.value) is error
    assert Home.open(home.path).config == CONFIG


def test_the_home_is_named_by_the_environment_then_by_xdg_then_by_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A relative XDG path is ignored, as the XDG specification asks."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("STRONGROOM_HOME", str(tmp_path / "named"))
    assert default_home() == tmp_path / "named"
    monkeypatch.setenv("STRONGROOM_HOME", "")
    assert default_home() == tmp_path / "state" / "strongroom"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert default_home() == tmp_path / ".local" / "state" / "strongroom"


def test_everything_in_a_home_is_private(enrolled: Enrolled) -> None:
    """Folders are 0700 and files 0600, whatever the umask was."""
    for path in [enrolled.home.path, *enrolled.home.path.rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_a_folder_with_other_things_in_it_does_not_become_a_home(tmp_path: Path) -> None:
    """Nothing of somebody's is swept away."""
    folder = tmp_path / "documents"
    folder.mkdir(mode=0o700)
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(ConfigurationInvalid, match="not empty"):
        create_officer_home(folder, "officer-1", passphrase=None)
    assert (folder / "letter.txt").read_text() == "dear"


def test_a_home_that_lost_its_configuration_keeps_its_keys(tmp_path: Path) -> None:
    """Without config.toml and without the mark of an unfinished home, keys are never thrown away."""
    home = create_officer_home(tmp_path / "officer-1", "officer-1", passphrase=None)
    (home.path / "config.toml").unlink()
    with pytest.raises(ConfigurationInvalid, match="not empty"):
        create_officer_home(home.path, "officer-1", passphrase=None)
    assert home.signing_key_file.exists()


def test_an_existing_home_is_not_made_again(tmp_path: Path) -> None:
    """The second try changes nothing."""
    home = create_officer_home(tmp_path / "officer-1", "officer-1", passphrase=None)
    with pytest.raises(ConfigurationInvalid, match="already"):
        create_officer_home(home.path, "officer-1", passphrase=None)
    assert Home.open(home.path) == home


def test_a_home_can_be_made_in_an_empty_folder_that_exists(tmp_path: Path) -> None:
    """As a mounted volume or a service manager's state folder is."""
    folder = tmp_path / "volume"
    folder.mkdir(mode=0o700)
    assert Home.open(create_officer_home(folder, "officer-1", passphrase=None).path).config.name == "officer-1"
