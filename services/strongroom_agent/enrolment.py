"""Enrolling: a host binds a new signing key to a principal on the strength of an invitation (SPEC 2.7)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey, key_id
from strongroom.errors import InvitationInvalid, Rejected, ReplyInvalid, RosterInvalid, StateCorrupt, UsageError
from strongroom.fields import new_id, parse_body
from strongroom.leaves import EnrolmentLeaf
from strongroom.mandates import Enrolment, Invitation
from strongroom.roster import Roster
from strongroom.statements import Statement, parse_envelope
from strongroom_agent import age
from strongroom_agent.cards import discard_one_time_key, own_one_time_key
from strongroom_agent.home import BrokerLogin, Config, Home, Role, write_atomically
from strongroom_agent.identity import check_name, found_home, signing_key
from strongroom_agent.invitation import InvitationFile
from strongroom_agent.link import Connector, broker_link
from strongroom_agent.patience import Deadline, patiently
from strongroom_agent.proofs import Question, Receipted
from strongroom_agent.session import Session
from strongroom_agent.state import KeptEnrolment, State
from strongroom_agent.trust import Trust, keep_roster

ENROL_SECONDS: float = 60.0


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A home whose key speaks for its principal, by a receipt of the recovery log.

    root_key_id: of the root key that is pinned now. age_recipient: the public key of the owner's age identity.
    log_index, tree_size: of the enrolment's receipt.
    """

    home: Home
    principal: str
    authority: str
    root_key_id: str
    key_id: str
    age_recipient: str
    log_index: int
    tree_size: int
    roster_version: int
    roster_expires_at: int


async def enrol(
    path: Path,
    document: bytes,
    *,
    name: str | None = None,
    root_key_id: str | None = None,
    passphrase: Secret | None = None,
    login: BrokerLogin | None = None,
    wait_seconds: float = ENROL_SECONDS,
    connector: Connector = broker_link,
    clock: Callable[[], float] = time.time,
) -> Enrolled:
    """Make a home at `path` and enrol it with an invitation file.

    The invitation is verified before anything is made or sent. After a crash or without an answer, call it again
    with the same file: the same enrolment is sent, and a home that is enrolled already just says so. Arguments:
    `name` is the principal, needed for an invitation of many; `root_key_id` is what the invitation's root key must
    be, known by another way than the file; `passphrase` protects the new signing key, and opens the one-time key
    of the host's card, which is removed once the host is enrolled; `login` is used instead of the invitation's.
    Raises InvitationInvalid, RosterInvalid, Expired, SignatureInvalid, WrongAuthority for what is wrong with the
    file; Rejected when the authority refuses; UsageError for a name that is missing or none, and for a home that is
    enrolled otherwise; KeyFileInvalid; ReplyInvalid, CheckpointInvalid, ProofInvalid, LogForked for an answer not
    to be believed; BrokerUnavailable, Unroutable, NoAnswer, Busy when it is worth trying again.
    """
    file = InvitationFile.parse(document)
    if root_key_id not in (None, key_id(file.root_key)) and root_key_id not in map(
        key_id, Roster.verified(file.roster, file.root_key).root_keys
    ):
        raise RosterInvalid(
            f"root_key: the invitation file pins {key_id(file.root_key)}, and the root key must be {root_key_id}",
            hint="do not enrol with this file; tell the officers, by another way than it came",
        )
    if (path / "config.toml").exists():
        home = Home.open(path)
        with home.lock():
            kept = _continue(home, file, name, passphrase, int(clock()))
            if kept.enrolled_at is None:
                home = _point_to(home, file, login)
            else:
                discard_one_time_key(home)
    else:
        home, kept = _begin(path, file, name=name, passphrase=passphrase, login=login, now=int(clock()))
    if kept.enrolled_at is None:
        await patiently(lambda deadline: _send(home, kept, connector, clock, deadline), wait_seconds=wait_seconds)
    return _enrolled(home, kept.id)


def _begin(
    path: Path,
    file: InvitationFile,
    *,
    name: str | None,
    passphrase: Secret | None,
    login: BrokerLogin | None,
    now: int,
) -> tuple[Home, KeptEnrolment]:
    roster, invitation = file.check(now)
    principal = _principal(invitation, name)
    one_time_key = file.one_time_key or own_one_time_key(path, invitation.one_time_key, passphrase)

    def prepare(key: SigningKey, state: State) -> Config:
        keep_roster(state, roster, now)
        _prepare(state, invitation, file.invitation, principal=principal, keys=(key, one_time_key), now=now)
        config = Config(
            name=principal,
            role=Role.PRINCIPAL,
            key_id=key.key_id,
            public_key=key.public_key,
            authority=invitation.authority,
            root_key=roster.root_key,
            broker_url=file.broker_url,
        )
        return login.keep(path, config) if login else config

    home = found_home(path, passphrase=passphrase, with_age_key=True, broker_ca=file.broker_ca, prepare=prepare)
    with State.open(home.state_file) as state:
        return home, state.enrolments()[0]


def _principal(invitation: Invitation, name: str | None) -> str:
    principal = name or invitation.principal
    if principal is None:
        raise UsageError(f"the invitation is for {invitation.whom}", hint="say with --name which of them this is")
    check_name("--name", principal)
    if not invitation.covers(principal):
        raise InvitationInvalid(
            f"principal: the invitation is for {invitation.whom}, not for {principal}",
            hint="name one that it is for, or ask an officer for another invitation",
        )
    return principal


def _continue(
    home: Home, file: InvitationFile, name: str | None, passphrase: Secret | None, now: int
) -> KeptEnrolment:
    authority, root_key = home.authority()
    if home.config.role is not Role.PRINCIPAL:
        raise UsageError(f"{home.path}: is an officer's home", hint="name another folder with --home")
    wanted = parse_body(file.invitation, Invitation).id
    with State.open(home.state_file) as state:
        file.check_same_authority(root_key, Trust.of(home, state).newest)
        enrolments = state.enrolments()
        kept = next((each for each in enrolments if each.invitation == wanted), None)
        if kept is not None and name in (None, home.config.name):
            # It may be in the log since long ago, so its invitation may have expired and be used.
            return kept
        if any(each.enrolled_at is not None for each in enrolments):
            raise UsageError(
                f"{home.path}: is enrolled as {home.config.name} already", hint="name another folder with --home"
            )
        roster, invitation = file.check(now)
        # With a prefix, the home itself says which of them it is.
        principal = _principal(invitation, name or invitation.principal or home.config.name)
        if (invitation.authority, principal) != (authority, home.config.name):
            raise UsageError(
                f"{home.path}: was begun for {home.config.name} at {authority},"
                f" the invitation is to be used for {principal} at {invitation.authority}",
                hint="name another folder with --home",
            )
        one_time_key = file.one_time_key or own_one_time_key(home.path, invitation.one_time_key, passphrase)
        with state.transaction():
            trust = Trust.of(home, state)
            # An answer may have brought a newer one than the officer had; the authority judges by its own.
            if roster.body.version >= trust.newest.body.version:
                trust.adopt(roster.statement, now)
            keys = signing_key(home, passphrase), one_time_key
            _prepare(state, invitation, file.invitation, principal=principal, keys=keys, now=now)
        return state.enrolments()[-1]


def _point_to(home: Home, file: InvitationFile, login: BrokerLogin | None) -> Home:
    """Follow the broker of the file at hand: the one that the home was begun with may have been wrong.

    A certificate stays until another one is given.
    """
    authorities = home.path / "broker-ca.pem"
    if file.broker_ca is None:
        authorities.unlink(missing_ok=True)
    else:
        write_atomically(authorities, file.broker_ca.encode())
    config = replace(home.config, broker_url=file.broker_url)
    return home.write_config(login.keep(home.path, config) if login else config)


def _prepare(
    state: State,
    invitation: Invitation,
    statement: Statement,
    *,
    principal: str,
    keys: tuple[SigningKey, SigningKey],
    now: int,
) -> None:
    """Sign and keep an enrolment; `keys` are the home's own and the one-time key, `statement` the invitation's."""
    enrolment = Enrolment(
        authority=invitation.authority,
        id=new_id(),
        issued_at=now,
        principal=principal,
        signing_key=keys[0].public_key,
        invitation=statement.envelope(),
    )
    signed = Statement.sign(Enrolment.TYPE, enrolment.to_bytes(), *keys)
    state.keep_enrolment(invitation.id, enrolment.id, signed.envelope(), now)


async def _send(
    home: Home, kept: KeptEnrolment, connector: Connector, clock: Callable[[], float], deadline: Deadline
) -> None:
    with home.lock(), State.open(home.state_file) as state:
        trust = Trust.of(home, state)
        async with connector(home) as link:
            session = Session(link=link, name=home.config.name, state=state, trust=trust, clock=clock)
            await _obtain_receipt(session, kept, deadline)
        discard_one_time_key(home)


async def finish(home: Home, session: Session, deadline: Deadline) -> None:
    """Prove the enrolment of a host's home if it has no receipt yet; nothing else may be sent from it before.

    The kept enrolments are sent again, the newest first: an older one may be in the log without a word of it
    having arrived. Raises Rejected when the authority refuses all of them, and what `enrol` raises for answers.
    """
    if home.config.role is not Role.PRINCIPAL:
        return
    enrolments = session.state.enrolments()
    if any(each.enrolled_at is not None for each in enrolments):
        discard_one_time_key(home)
        return
    refusal: Rejected | None = None
    for kept in reversed(enrolments):
        try:
            await _obtain_receipt(session, kept, deadline)
        except Rejected as error:
            refusal = refusal or error
        else:
            discard_one_time_key(home)
            return
    if refusal is not None:
        raise Rejected(
            f"not enrolled yet: {refusal.message}",
            remote_code=refusal.remote_code,
            hint="run `strongroom enrol` with a new invitation; what is spooled goes out after it",
        )


async def _obtain_receipt(session: Session, kept: KeptEnrolment, deadline: Deadline) -> None:
    session.check_unforked("recovery")
    statement = parse_envelope(kept.envelope)
    question = Question("recovery", kept.id, statement.digest)
    held = session.state.checkpoint("recovery")
    answer = await session.ask("enrol", question, kept.envelope, deadline=deadline, held=held)
    session.raise_refusal(answer)
    receipted = session.receipted(answer)
    _check_leaf(receipted, question, statement, kept.invitation)
    with session.state.transaction():
        session.state.mark_enrolled(kept.id, receipted.receipt, session.now)
        session.state.keep_checkpoint(receipted.checkpoint, session.now)


def _check_leaf(receipted: Receipted, question: Question, statement: Statement, invitation: str) -> None:
    leaf = receipted.leaf
    enrolment = parse_body(statement, Enrolment)
    if not isinstance(leaf, EnrolmentLeaf) or leaf != EnrolmentLeaf(
        time=leaf.time,
        id=question.id,
        digest=question.digest.hex(),
        principal=enrolment.principal,
        key=key_id(enrolment.signing_key),
        invitation=invitation,
    ):
        raise ReplyInvalid("reply: a receipt for something else")


def _enrolled(home: Home, statement_id: str) -> Enrolled:
    authority, root_key = home.authority()
    with State.open(home.state_file) as state:
        kept = next((each for each in state.enrolments() if each.id == statement_id), None)
        roster: Roster = Trust.of(home, state).newest
    if kept is None or kept.log_index is None or kept.tree_size is None:
        raise StateCorrupt(f"{home.state_file}: the enrolment was not kept")
    return Enrolled(
        home=home,
        principal=home.config.name,
        authority=authority,
        root_key_id=key_id(root_key),
        key_id=home.config.key_id,
        age_recipient=str(age.read_identities(home.age_key_file)[0].to_public()),
        log_index=kept.log_index,
        tree_size=kept.tree_size,
        roster_version=roster.body.version,
        roster_expires_at=roster.body.expires_at,
    )
