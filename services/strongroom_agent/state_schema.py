"""The tables of a home's state database, and the steps from one version of them to the next."""

from typing import Final

SCHEMA_VERSION: Final = 4

FIRST: Final = """
CREATE TABLE rosters (
    version    INTEGER PRIMARY KEY,
    envelope   BLOB    NOT NULL,
    expires_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
);
CREATE TABLE checkpoints (                    -- the newest of each log
    log     TEXT    PRIMARY KEY CHECK (log IN ('escrow', 'recovery')),
    size    INTEGER NOT NULL,
    root    BLOB    NOT NULL,
    note    TEXT    NOT NULL,
    seen_at INTEGER NOT NULL
);
CREATE TABLE evidence (                       -- signed checkpoints of one log that do not belong together
    id        INTEGER PRIMARY KEY,
    log       TEXT    NOT NULL,
    statement TEXT    NOT NULL,
    reason    TEXT    NOT NULL,
    held_note TEXT    NOT NULL,
    note      TEXT    NOT NULL,
    reply     BLOB    NOT NULL,
    seen_at   INTEGER NOT NULL,
    UNIQUE (held_note, note)
);
CREATE TABLE enrolments (
    invitation  TEXT    PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    envelope    BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    leaf        BLOB,
    proof       TEXT,
    log_index   INTEGER,
    tree_size   INTEGER,
    enrolled_at INTEGER
);
CREATE TABLE statements (
    position   INTEGER PRIMARY KEY,           -- the order in which they were spooled
    id         TEXT    NOT NULL UNIQUE,
    envelope   BLOB    NOT NULL,
    digest     BLOB    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('spooled', 'stored', 'rejected')),
    created_at INTEGER NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    leaf       BLOB,
    proof      TEXT,
    log_index  INTEGER,
    tree_size  INTEGER,
    stored_at  INTEGER,
    code       TEXT,
    message    TEXT,
    rejection  BLOB,
    CHECK (state <> 'stored' OR (leaf IS NOT NULL AND proof IS NOT NULL AND log_index IS NOT NULL
                                 AND tree_size IS NOT NULL AND stored_at IS NOT NULL)),
    CHECK (state <> 'rejected' OR (code IS NOT NULL AND message IS NOT NULL AND rejection IS NOT NULL))
);
CREATE INDEX statements_open ON statements (position) WHERE state <> 'stored';
CREATE INDEX statements_created ON statements (created_at);
CREATE TABLE records (
    id            TEXT PRIMARY KEY,
    statement     TEXT NOT NULL REFERENCES statements (id),
    name          TEXT NOT NULL,
    kind          TEXT NOT NULL,
    description   TEXT NOT NULL,
    serial_number TEXT NOT NULL,
    algorithm     TEXT NOT NULL,
    labels        TEXT NOT NULL,              -- a JSON object
    fingerprint   TEXT NOT NULL,
    kid           TEXT NOT NULL,
    listed        TEXT CHECK (listed IN ('stored', 'disclosed', 'missing', 'mismatched')),
    listed_at     INTEGER                     -- when the authority's own listing was last compared
) WITHOUT ROWID;
CREATE INDEX records_statement ON records (statement);
CREATE INDEX records_name ON records (name);
"""

_LISTING: Final = """
CREATE TABLE disclosures (                    -- as the last complete listing has them: the newest of each record
    record         TEXT    PRIMARY KEY,
    name           TEXT    NOT NULL,
    request        TEXT    NOT NULL,
    requester      TEXT    NOT NULL,
    requester_kind TEXT    NOT NULL CHECK (requester_kind IN ('principal', 'officer')),
    released_at    INTEGER NOT NULL,
    reason         TEXT
) WITHOUT ROWID;
CREATE TABLE pending_requests (               -- of others for this principal's records, from the same listing
    request        TEXT    PRIMARY KEY,
    digest         TEXT    NOT NULL,
    requester      TEXT    NOT NULL,
    requester_kind TEXT    NOT NULL CHECK (requester_kind IN ('principal', 'officer')),
    asked_at       INTEGER NOT NULL,
    not_before     INTEGER NOT NULL,
    reason         TEXT
) WITHOUT ROWID;
"""

_EVIDENCE: Final = """
CREATE TABLE proof_leaves (                   -- of the recovery log, each with its path to a signed checkpoint
    log_index INTEGER PRIMARY KEY,
    leaf      BLOB    NOT NULL,
    proof     TEXT    NOT NULL
);
CREATE TABLE standings (                      -- what the last complete listing led to, earlier homes' records too
    record      TEXT    PRIMARY KEY,
    name        TEXT    NOT NULL,
    listed      TEXT    NOT NULL CHECK (listed IN ('stored', 'proven', 'unprovable', 'stale', 'disclosed',
                                                   'replaced', 'missing', 'mismatched')),
    listed_at   INTEGER NOT NULL,
    proof       INTEGER REFERENCES proof_leaves (log_index),
    proven_at   INTEGER,
    code        TEXT,
    attested_at INTEGER,
    replace_by  INTEGER,
    supersedes  TEXT    NOT NULL DEFAULT '[]' -- a JSON array of record ids
) WITHOUT ROWID;
CREATE INDEX standings_name ON standings (name);
INSERT INTO standings (record, name, listed, listed_at)
    SELECT id, name, CASE listed WHEN 'disclosed' THEN 'stored' ELSE listed END, coalesce(listed_at, 0)
    FROM records WHERE listed IS NOT NULL;
ALTER TABLE records DROP COLUMN listed;
ALTER TABLE records DROP COLUMN listed_at;
ALTER TABLE records ADD COLUMN supersedes TEXT NOT NULL DEFAULT '[]';
ALTER TABLE records ADD COLUMN salt BLOB;
ALTER TABLE disclosures ADD COLUMN replace_by INTEGER;
ALTER TABLE disclosures ADD COLUMN is_replaced INTEGER NOT NULL DEFAULT 0;
CREATE TABLE attestations (                   -- the newest of each record
    record      TEXT    PRIMARY KEY,
    matches     INTEGER NOT NULL,
    attested_at INTEGER NOT NULL,
    log_index   INTEGER NOT NULL
) WITHOUT ROWID;
"""

_IMPORTS: Final = """
CREATE TABLE import_key (                     -- under which the digests of `imports` are made
    only INTEGER PRIMARY KEY CHECK (only = 0),
    key  BLOB    NOT NULL
);
CREATE TABLE imports (                        -- what was imported last under each name of a source
    source TEXT NOT NULL,
    name   TEXT NOT NULL,
    digest BLOB NOT NULL,                     -- HMAC-SHA256 of the key and of what is said about it
    record TEXT NOT NULL REFERENCES records (id),
    PRIMARY KEY (source, name)
) WITHOUT ROWID;
"""

# The step from each schema version to the next one.
MIGRATIONS: Final = {1: _LISTING, 2: _EVIDENCE, 3: _IMPORTS}

SCHEMA: Final = FIRST + _LISTING + _EVIDENCE + _IMPORTS
