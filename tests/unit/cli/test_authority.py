"""`authority init`, `sign-roster` and `show`: what is signed, what is said about it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from strongroom.crypto.key_file import read_signing_key
from strongroom.crypto.secret import Secret
from strongroom.mandates import Expectation, ExpectedLabel, Policy, Role
from strongroom.roster import Roster
from strongroom.settings import read_root_key, read_roster
from strongroom.statements import parse_envelope
from strongroom_agent.identity import create_officer_home
from strongroom_cli import policy
from strongroom_cli.app import cli


class Place:
    """A folder with officers' cards, and an authority of three officers in `keys`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        for name in ("alice", "bob", "carol", "dora"):
            self.say("officer", "init", name, "--home", str(folder / name), to=f"{name}.json")

    def say(self, *words: str, code: int = 0, to: str | None = None) -> Result:
        """Run `strongroom`, and expect this exit code; standard output may go to a file."""
        result = CliRunner().invoke(cli, words)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        if to is not None:
            (self.folder / to).write_bytes(result.stdout_bytes)
        return result

    def card(self, name: str, roles: str = "") -> str:
        """Return a card, perhaps with roles, as an argument."""
        return f"{self.folder / name}.json{roles}"

    def init(self, *words: str, officers: tuple[str, ...] = ("alice", "bob", "carol"), code: int = 0) -> Result:
        """Found the authority."""
        cards = [word for name in officers for word in ("--officer", self.card(*name.split("|")))]
        secret = () if "--root-passphrase-file" in words else ("--no-passphrase",)
        return self.say(
            "authority",
            "init",
            str(self.keys),
            "--authority",
            "keys.example.org",
            *cards,
            *secret,
            *words,
            code=code,
        )

    def sign(self, *words: str, code: int = 0) -> Result:
        """Sign the next roster."""
        return self.say("authority", "sign-roster", str(self.keys), *words, code=code)

    def verified(self, envelope: bytes | None = None) -> Roster:
        """Return a roster, by default that of the file, verified under the root key."""
        statement = parse_envelope(envelope) if envelope else read_roster(self.keys / "roster.json")
        return Roster.verified(statement, read_root_key(self.keys / "root.pub"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def roles(roster: Roster, name: str) -> set[Role]:
    """Return the roles of an officer."""
    return set(roster.officer(name).roles)


# ---- init ----


def test_the_defaults_on_the_command_line_are_those_of_the_policy() -> None:
    """Both are written down, and say the same; no member is without an option."""
    values = Policy().model_dump(exclude={"expected"})
    assert {member: default for member, _, _, default, _ in policy.POLICY.values()} == values
    assert set(policy.ROLES) == {role.value for role in Role}


def test_a_new_authority_has_the_policy_that_was_asked_for(place: Place) -> None:
    """Every member has an option."""
    asked = {
        "--replacement-signatures": "3",
        "--self-recovery-approvals": "1",
        "--recovery-approvals": "1",
        "--recovery-delay-hours": "24",
        "--requests-per-hour": "5",
        "--released-records-per-day": "7",
        "--prove-days": "8",
        "--attest-days": "9",
        "--replace-days": "10",
    }
    told = place.init(*(word for pair in asked.items() for word in pair))
    assert place.verified().body.policy == Policy(
        replacement_signatures=3,
        self_recovery_approvals=1,
        officer_recovery_approvals=1,
        officer_recovery_delay_hours=24,
        requests_per_hour=5,
        released_records_per_day=7,
        prove_days=8,
        attest_days=9,
        replace_days=10,
    )
    for option, value in asked.items():
        assert f"policy      {option.removeprefix('--')} {value}\n" in told.stdout
    assert "warning" not in told.stderr


def test_the_signer_of_the_roster_decides_about_roles(place: Place) -> None:
    """Without a word all, with a list these, with nothing after the colon none."""
    place.init(officers=("alice", "bob", "carol|:approve,audit", "dora|:"))
    roster = place.verified()
    assert roles(roster, "alice") == set(Role)
    assert roles(roster, "carol") == {Role.APPROVE, Role.AUDIT}
    assert roles(roster, "dora") == set()


def test_roles_on_the_card_count_where_the_signer_names_none(place: Place) -> None:
    """And are overruled where he does."""
    card = place.folder / "carol.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "roles": ["audit"]}))
    place.init(officers=("alice", "bob", "carol"))
    assert roles(place.verified(), "carol") == {Role.AUDIT}
    place.sign("--remove-officer", "carol", "--add-officer", place.card("carol", ":approve"), "--in-place")
    assert roles(place.verified(), "carol") == {Role.APPROVE}


def test_a_file_whose_name_ends_like_a_role_is_a_file(place: Place) -> None:
    """Its whole name comes first."""
    (place.folder / "x:audit").write_bytes((place.folder / "carol.json").read_bytes())
    (place.folder / "carol.json").rename(place.folder / "x")
    place.say(
        *("authority", "init", str(place.keys), "--authority", "keys.example.org", "--no-passphrase"),
        *("--officer", place.card("alice"), "--officer", place.card("bob")),
        *("--officer", str(place.folder / "x:audit")),
    )
    assert roles(place.verified(), "carol") == set(Role)


@pytest.mark.parametrize("role", [":king", ":approve,king"])
def test_a_role_that_is_none_is_refused(place: Place, role: str) -> None:
    """In words of its own, with the roles that there are."""
    told = place.init(officers=("alice", "bob", f"carol|{role}"), code=2).stderr
    assert "'king' is no role" in told
    assert "the roles are invite, recover, approve, revoke, audit" in told
    assert not place.keys.exists()


@pytest.mark.parametrize(("content", "code"), [("", 1), ("garbage", 1), ("[]", 2), ("{}", 1)])
def test_a_file_that_is_no_officers_card_is_named(place: Place, content: str, code: int) -> None:
    """Of several cards one cannot tell otherwise which is meant."""
    (place.folder / "odd.json").write_text(content)
    told = place.init(officers=("alice", "odd"), code=code).stderr
    assert "officer card " in told
    assert "odd.json: " in told
    assert "strongroom officer init" in told


def test_a_policy_that_two_officers_cannot_meet_is_warned_of(place: Place) -> None:
    """The roster is signed all the same: more officers may come."""
    told = place.init(officers=("alice", "bob"))
    assert "warning: recovery-approvals is 2" in told.stderr
    assert place.verified().body.policy.officer_recovery_approvals == 2


LAPTOPS = Expectation(prefix="laptop-", label=None, names=["disk/root", "disk/home"])
NORTH = Expectation(prefix="", label=ExpectedLabel(name="site", value="north: 1"), names=["vpn"])


def test_what_principals_should_hold_is_written_down_and_shown(place: Place) -> None:
    """By prefix, by label, or both."""
    told = place.init("--expect", "laptop-:disk/root,disk/home", "--expect", "[site=north: 1]:vpn")
    assert place.verified().body.policy.expected == [LAPTOPS, NORTH]
    assert "  expected    laptop-:disk/root,disk/home\n  expected    [site=north: 1]:vpn\n" in told.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("laptop-", "must be PREFIX:NAME"),
        ("laptop-:", "must be PREFIX:NAME"),
        ("laptop-:a,,b", "must be PREFIX:NAME"),
        ("Laptop-:a", "must be PREFIX:NAME"),
        ("laptop-[site]:a", "must be PREFIX:NAME"),
        ("laptop-[=x]:a", "must be PREFIX:NAME"),
        (f"laptop-:{'a' * 129}", "the limit is at most 128 characters"),
        (f"laptop-:{','.join(map(str, range(33)))}", "the limit is at most 32 entries"),
        ("laptop-:a\u0007", "control character"),
    ],
)
def test_an_expectation_out_of_shape_is_refused(place: Place, text: str, said: str) -> None:
    """In words, before any key is made."""
    result = CliRunner().invoke(cli, ["authority", "init", str(place.keys), "--expect", text])
    assert result.exit_code != 0
    assert said in " ".join(result.stderr.split())
    assert not place.keys.exists()


# ---- sign-roster ----


def test_expectations_are_replaced_as_a_whole_and_what_changes_is_said(place: Place) -> None:
    """Without the option they stay; `none` ends them all."""
    place.init("--expect", "laptop-:disk/root,disk/home")
    first = place.sign("--expect", "laptop-:disk/root,disk/home", "--expect", "[site=north: 1]:vpn", "--in-place")
    assert place.verified().body.policy.expected == [LAPTOPS, NORTH]
    assert "  [site=north: 1]:vpn is expected\n" in first.stderr
    assert "laptop-" not in first.stderr
    place.sign("--set-policy", "prove-days=5", "--in-place")
    assert place.verified().body.policy == Policy(prove_days=5, expected=[LAPTOPS, NORTH])
    last = place.sign("--expect", "none", "--in-place")
    assert place.verified().body.policy.expected == []
    assert "  laptop-:disk/root,disk/home is not expected any more\n" in last.stderr
    assert "stands alone" in place.sign("--expect", "none", "--expect", "a:b", code=2).stderr


def test_the_next_roster_is_printed_and_what_changes_is_said(place: Place) -> None:
    """The file stays as it is; the printed roster follows it."""
    place.init()
    before = place.verified()
    result = place.sign(
        *("--add-officer", place.card("dora", ":invite,approve"), "--remove-officer", "carol"),
        *("--set-policy", "recovery-approvals=1", "--set-policy", "requests_per_hour=5", "--life", "30"),
    )
    after = place.verified(result.stdout_bytes)
    after.check_follows(before)
    assert after.body.version == 2
    assert [officer.name for officer in after.body.officers] == ["alice", "bob", "dora"]
    assert roles(after, "dora") == {Role.INVITE, Role.APPROVE}
    assert after.body.policy == Policy(officer_recovery_approvals=1, requests_per_hour=5)
    assert after.body.expires_at - after.body.issued_at == 30 * 86_400
    for words in (
        "roster version 2 follows version 1",
        "officer carol is removed",
        "officer dora is added: key ",
        "recovery-approvals is 1, was 2",
        "requests-per-hour is 5, was 100",
        "valid to ",
        "next: put it in the place of the workers' roster file",
    ):
        assert words in result.stderr
    assert place.verified().digest == before.digest


def test_a_roster_is_replaced_in_place_and_shown(place: Place) -> None:
    """Twice, as the months go by; the document is that of `show`."""
    place.init()
    assert "nothing but its version and times changes" in place.sign("--in-place").stderr
    told = place.sign("--remove-officer", "carol", "--in-place", "-o", "json")
    assert place.verified().body.version == 3
    shown = place.say(
        *("authority", "show", str(place.keys / "roster.json"), "--root-key", str(place.keys / "root.pub")),
        *("-o", "json"),
    )
    assert json.loads(told.stdout) == json.loads(shown.stdout)
    assert "warning: recovery-approvals is 2" in told.stderr


def test_the_root_key_may_be_elsewhere_and_under_a_passphrase(place: Place) -> None:
    """On the offline machine there are the roster and the root key alone."""
    secret = place.folder / "root.pass"
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    place.init("--root-passphrase-file", str(secret), "--no-passphrase")
    offline = place.folder / "offline"
    offline.mkdir()
    key = (place.keys / "root" / "root.key").rename(place.folder / "stick.key")
    (place.keys / "roster.json").rename(offline / "roster.json")
    words = ("authority", "sign-roster", str(offline), "--root-key-file", str(key))
    assert "root.key" in place.say("authority", "sign-roster", str(offline), code=1).stderr
    assert "passphrase" in place.say(*words, code=1).stderr
    result = place.say(*words, "--root-passphrase-file", str(secret))
    root = read_signing_key(key, Secret(b"open sesame"))
    assert Roster.verified(parse_envelope(result.stdout_bytes), root.public_key).body.version == 2


def test_another_root_key_signs_nothing(place: Place) -> None:
    """It did not sign the roster before."""
    place.init()
    home = create_officer_home(place.folder / "other", "other", passphrase=None)
    result = place.sign("--root-key-file", str(home.signing_key_file), code=1)
    assert "the pinned root key did not sign it" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--remove-officer", "nobody"), 4, "officer nobody"),
        (("--remove-officer", "alice", "--remove-officer", "bob"), 1, "replacement_signatures is 2"),
        (("--set-policy", "generosity=1"), 2, "the names are replacement-signatures, "),
        (("--set-policy", "recovery-approvals"), 2, "recovery-approvals: must be a whole number, 1 to 16"),
        (("--set-policy", "recovery-approvals=many"), 2, "must be a whole number, 1 to 16"),
        (("--set-policy", "recovery-approvals=-1"), 2, "must be a whole number, 1 to 16"),
        (("--set-policy", "recovery-approvals=" + "9" * 5000), 2, "must be a whole number, 1 to 16"),
        (
            ("--set-policy", "recovery-approvals=1", "--set-policy", "officer_recovery_approvals=2"),
            2,
            "each name once",
        ),
        (
            ("--set-policy", "officer_recovery_approvals=17"),
            2,
            "recovery-approvals: must be a whole number, 1 to 16",
        ),
        (("--life", "0"), 2, "--life"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else None,
)
def test_a_change_that_cannot_be_made_is_refused(
    place: Place, words: tuple[str, ...], code: int, said: str
) -> None:
    """Nothing is printed, and in place nothing changes."""
    place.init()
    before = (place.keys / "roster.json").read_bytes()
    result = place.sign(*words, "--in-place", code=code)
    assert said in result.stderr
    assert result.stdout == ""
    assert (place.keys / "roster.json").read_bytes() == before


def test_an_officer_who_is_there_is_not_added_twice(place: Place) -> None:
    """The hint says how key or roles are exchanged."""
    place.init()
    result = place.sign("--add-officer", place.card("alice", ":audit"), code=2)
    assert "officer alice: is in the roster already" in result.stderr
    assert "remove the officer in the same call" in result.stderr


def test_a_folder_without_a_roster_is_named(place: Place) -> None:
    """An empty one, too: the shell makes one of it when its output is redirected to the file itself."""
    place.init()
    (place.keys / "roster.json").write_bytes(b"")
    assert "roster.json" in place.sign(code=1).stderr
    (place.keys / "roster.json").unlink()
    assert "roster.json" in place.sign(code=1).stderr


# ---- show ----


def test_show_says_the_root_keys_id_and_the_policy(place: Place) -> None:
    """The id is what a host compares; officers without a role are shown as such."""
    place.init(officers=("alice", "bob", "carol", "dora|:"))
    root_key_id = read_signing_key(place.keys / "root" / "root.key", None).key_id
    words = ("authority", "show", str(place.keys / "roster.json"), "--root-key", str(place.keys / "root.pub"))
    told = place.say(*words).stdout
    assert told.startswith(f"authority keys.example.org: roster version 1, signed by root key {root_key_id}\n")
    for word in policy.POLICY:
        assert f"  policy      {word} " in told
    assert next(line for line in told.splitlines() if " dora " in line).endswith("  -")
    document: dict[str, Any] = json.loads(place.say(*words, "-o", "json").stdout)
    assert document["root_key_id"] == root_key_id
    assert document["policy"] == Policy().model_dump()


def test_show_takes_the_folder_or_the_roster_beside_its_root_key(place: Place) -> None:
    """The same is said as with every file named; where one is missing, it is named."""
    place.init()
    files = ("--root-key", str(place.keys / "root.pub"))
    whole = place.say("authority", "show", str(place.keys / "roster.json"), *files).stdout
    assert place.say("authority", "show", str(place.keys)).stdout == whole
    assert place.say("authority", "show", str(place.keys / "roster.json")).stdout == whole
    (place.keys / "root.pub").rename(place.folder / "elsewhere.pub")
    told = place.say("authority", "show", str(place.keys), code=2)
    assert f"{place.keys / 'root.pub'}: there is no such file" in told.stderr
    shown = place.say("authority", "show", str(place.keys), "--root-key", str(place.folder / "elsewhere.pub"))
    assert shown.stdout == whole
    assert "roster.json: there is no such file" in place.say("authority", "show", str(place.folder), code=2).stderr
