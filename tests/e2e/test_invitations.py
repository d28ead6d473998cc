"""How hosts are let in: a fleet by one file, a host by a key of its own, signatures that meet over the queue."""

import json
import secrets
from pathlib import Path

from tests.e2e.conftest import Enrol
from tests.support.command import Command

from strongroom.errors import ExitCode

OFFICERS = (".local/officer-1", ".local/officer-2")


def test_a_fleet_enrols_by_one_file_until_it_is_used_up(place: Path, strongroom: Command) -> None:
    """Two uses, two hosts; a third, and a name that is not covered, are refused, and the first may repeat it."""
    fleet = strongroom("invite", "--prefix", "fleet-", "--uses", "2", home=OFFICERS[0]).done()
    (place / "fleet.json").write_bytes(fleet.out)
    strongroom("enrol", "fleet.json", home="h1").done(ExitCode.USAGE)
    strongroom("enrol", "fleet.json", "--name", "other-1", home="h1").done(ExitCode.DENIED)
    for name in ("fleet-1", "fleet-2"):
        strongroom("enrol", "fleet.json", "--name", name, home=name).done()
    used = strongroom("enrol", "fleet.json", "--name", "fleet-3", "-o", "json", home="h3").done(ExitCode.DENIED)
    assert "was used before, 2 times" in used.error["message"]
    assert strongroom("enrol", "fleet.json", "-o", "json", home="fleet-1").done().document["principal"] == "fleet-1"
    (place / "k").write_bytes(secrets.token_bytes(32))
    strongroom("escrow", "k", "--name", "disk", home="fleet-2").done()


def test_a_fleet_file_takes_nobodys_name_over(place: Path, strongroom: Command, enrolled: Enrol) -> None:
    """It lets new hosts in and replaces none."""
    enrolled("taken-1")
    fleet = strongroom("invite", "--prefix", "taken-", "--uses", "5", home=OFFICERS[0]).done()
    (place / "fleet.json").write_bytes(fleet.out)
    refused = strongroom("enrol", "fleet.json", "--name", "taken-1", home="thief").done(ExitCode.DENIED)
    assert "does not replace its key" in refused.err


def test_a_lost_host_comes_back_by_a_key_that_no_officer_holds(
    place: Path, strongroom: Command, enrolled: Enrol
) -> None:
    """Its new home makes the key, two officers sign over the queue, and only this home can enrol by the file."""
    lost = enrolled("comes-back")
    (place / "k").write_bytes(content := secrets.token_bytes(32))
    strongroom("escrow", "k", "--name", "disk", home=lost).done()

    card = strongroom("card", "comes-back", home="new").done()
    assert strongroom("card", "comes-back", home="new").done().out == card.out
    (place / "card.json").write_bytes(card.out)
    key_id = card.err.partition("one-time key ")[2].split(";")[0]

    words = ("invite", "comes-back", "--replace", "--for", "card.json", "--send")
    first = strongroom(*words, home=OFFICERS[0]).done()
    assert key_id in first.err
    identifier = first.err.split()[1]
    unseen = strongroom("countersign", identifier, home=OFFICERS[1]).done(ExitCode.USAGE)
    assert "--yes" in unseen.err
    both = strongroom("countersign", identifier, "--yes", home=OFFICERS[1]).done()
    assert "replaces the key of comes-back" in both.err
    assert key_id in both.err
    assert "signed by officer-1, officer-2" in both.err
    assert json.loads(both.out)["one_time_key"] is None
    (place / "inv.json").write_bytes(both.out)

    thief = strongroom("enrol", "inv.json", "-o", "json", home="thief").done(ExitCode.DENIED)
    assert "strongroom card" in thief.error["hint"]
    root_pub = ".local/authority/root.pub"
    done = strongroom("enrol", "inv.json", "--root-key", root_pub, "-o", "json", home="new").done()
    assert done.document["principal"] == "comes-back"
    assert not (place / "new" / "one-time.key").exists()
    strongroom("recover", "--name", "disk", "--out", "k2", home="new").done()
    assert (place / "k2").read_bytes() == content
    strongroom("countersign", identifier, "--yes", home=OFFICERS[1]).done(ExitCode.NOT_FOUND)


def test_a_file_with_another_root_key_is_refused(place: Path, strongroom: Command) -> None:
    """Both ids are named, the one that `authority show` prints among them, and nothing is made."""
    (place / "inv.json").write_bytes(strongroom("invite", "careful", home=OFFICERS[0]).done().out)
    keys = ".local/authority"
    shown = strongroom("authority", "show", f"{keys}/roster.json", "--root-key", f"{keys}/root.pub").done()
    refused = strongroom("enrol", "inv.json", "--root-key", "0" * 32, home="h").done(ExitCode.FAILED)
    key_id = shown.out.decode().splitlines()[0].split()[-1]
    assert key_id in refused.err
    assert "0" * 32 in refused.err
    assert not (place / "h").exists()
    strongroom("enrol", "inv.json", "--root-key", key_id, home="h").done()
