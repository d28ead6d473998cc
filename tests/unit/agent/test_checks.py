"""`checks.toml`: where the live keys are, read as strictly as everything that has commands run."""

from pathlib import Path

import pytest

from strongroom.errors import ConfigurationInvalid
from strongroom_agent import checks as checks_module
from strongroom_agent.checks import CHECKS_FILE, Check, Kind, keep_checks, parse_checks, read_checks
from strongroom_agent.enrolment import Enrolled
from strongroom_agent.home import Home

GOOD = """
[[check]]
name = "disk"
file = "/etc/keys/disk"

[[check]]
name = "backup"
age = "/root/backup.age-identity"

[[check]]
name = "database"
command = ["/usr/local/sbin/opens", "data base"]
"""


@pytest.fixture
def home(enrolled: Enrolled) -> Home:
    return enrolled.home


def write(home: Home, text: str, mode: int = 0o600) -> Path:
    path = home.path / CHECKS_FILE
    path.write_text(text)
    path.chmod(mode)
    return path


def test_each_kind_of_check_is_read(home: Home) -> None:
    """A command keeps its arguments apart, and gives no key."""
    write(home, GOOD)
    found = read_checks(home)
    assert found == (
        Check("disk", Kind.FILE, ("/etc/keys/disk",)),
        Check("backup", Kind.AGE, ("/root/backup.age-identity",)),
        Check("database", Kind.COMMAND, ("/usr/local/sbin/opens", "data base")),
    )
    assert [check.gives_key for check in found] == [True, True, False]


def test_a_home_without_the_file_has_no_checks(home: Home) -> None:
    """And neither has one with an empty file."""
    assert read_checks(home) == ()
    write(home, "")
    assert read_checks(home) == ()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o777])
def test_a_file_that_others_may_use_is_refused(home: Home, mode: int) -> None:
    """Whoever may write it has commands run as this user."""
    write(home, GOOD, mode)
    with pytest.raises(ConfigurationInvalid, match="others may use it") as caught:
        read_checks(home)
    assert "chmod go=" in (caught.value.hint or "")


def test_a_file_of_another_user_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with the right mode."""
    write(home, GOOD)
    monkeypatch.setattr("strongroom_agent.home.os.geteuid", lambda: 12_345)
    with pytest.raises(ConfigurationInvalid, match="another user"):
        read_checks(home)


def test_a_folder_in_the_place_of_the_file_is_refused(home: Home) -> None:
    """In our words."""
    (home.path / CHECKS_FILE).mkdir(mode=0o700)
    with pytest.raises(ConfigurationInvalid, match=r"checks\.toml"):
        read_checks(home)


def test_a_file_that_is_too_long_is_refused(home: Home) -> None:
    """One byte above the limit, and one below it."""
    write(home, "#" * (checks_module.CHECKS_BYTES_MAX - 1) + "\n")
    assert read_checks(home) == ()
    write(home, "#" * checks_module.CHECKS_BYTES_MAX + "\n")
    with pytest.raises(ConfigurationInvalid, match="longer than"):
        read_checks(home)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[check]", "is not TOML"),
        ("\udcff", "is not TOML"),
        ("other = 1", "'other': an unknown member"),
        ("check = 1", "must be tables"),
        ("check = [1]", "must be tables"),
        ('[check]\nname = "disk"', "must be tables"),
        ('[[check]]\nfile = "/k"', "check 1: name"),
        ('[[check]]\nname = 1\nfile = "/k"', "check 1: name"),
        ('[[check]]\nname = ""\nfile = "/k"', "check 1: name"),
        (f'[[check]]\nname = "{"n" * 129}"\nfile = "/k"', "check 1: name"),
        ('[[check]]\nname = "a\\u0007"\nfile = "/k"', "check 1: name"),
        ('[[check]]\nname = "disk"', "exactly one of file, age, command"),
        ('[[check]]\nname = "disk"\nfile = "/k"\nage = "/k"', "exactly one of"),
        ('[[check]]\nname = "disk"\nfile = "/k"\nshell = true', "'shell': an unknown member"),
        ('[[check]]\nname = "disk"\nfile = "k"', "file: must be an absolute path"),
        ('[[check]]\nname = "disk"\nfile = 1', "file: must be an absolute path"),
        ('[[check]]\nname = "disk"\nfile = ["/k"]', "file: must be an absolute path"),
        ('[[check]]\nname = "disk"\nfile = "/k\\u0000"', "file: must be an absolute path"),
        ('[[check]]\nname = "disk"\nage = ""', "age: must be an absolute path"),
        ('[[check]]\nname = "disk"\ncommand = "/bin/true"', "command: must be a list"),
        ('[[check]]\nname = "disk"\ncommand = []', "command: must be a list"),
        ('[[check]]\nname = "disk"\ncommand = ["true"]', "command: must be a list"),
        ('[[check]]\nname = "disk"\ncommand = ["/bin/true", 1]', "command: must be a list"),
        (f'[[check]]\nname = "disk"\ncommand = {["/t"] * 65}', "command: must be a list"),
        ('[[check]]\nname = "disk"\nfile = "/k"\n' * 2, "two checks of 'disk'"),
        ("[[check]]\n" * 257, "257 checks"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    """By the number of the check and the member; nothing is guessed."""
    with pytest.raises(ConfigurationInvalid) as caught:
        parse_checks(text.encode(errors="surrogateescape"), where="checks.toml")
    assert words in caught.value.message
    assert caught.value.message.startswith("checks.toml: ")


def test_a_check_is_added_or_takes_the_place_of_its_name(home: Home) -> None:
    """The file is private, and reads as what was written, whatever is in a path."""
    write(home, GOOD)
    odd = Check("disk", Kind.FILE, ('/k "quoted"\\ \x7f é',))
    new = Check("more", Kind.COMMAND, ("/bin/sh", "-c", "a\nb"))
    keep_checks(home, [odd, new])
    assert {check.name: check for check in read_checks(home)} == {
        "disk": odd,
        "backup": Check("backup", Kind.AGE, ("/root/backup.age-identity",)),
        "database": Check("database", Kind.COMMAND, ("/usr/local/sbin/opens", "data base")),
        "more": new,
    }
    assert (home.path / CHECKS_FILE).stat().st_mode & 0o777 == 0o600


def test_what_could_not_be_read_again_is_not_written(home: Home) -> None:
    """A check of a name that is none, one too many, or more than fits; what is there stays."""
    path = write(home, GOOD)
    many = [Check(f"n{number}", Kind.FILE, ("/k",)) for number in range(254)]
    long = [Check(f"n{number}", Kind.FILE, ("/" + "k" * 4_000,)) for number in range(20)]
    for new in ([Check("a\x07", Kind.FILE, ("/k",))], many, long):
        with pytest.raises(ConfigurationInvalid):
            keep_checks(home, new)
    assert path.read_text() == GOOD
    keep_checks(home, many[:-1])
    assert len(read_checks(home)) == 256
