-- The first schema (SPEC sections 4, 5, 7 and 10).
--
-- Rows are only ever added. Envelopes are the truth, kept byte for byte as they were signed; the other columns
-- are an index over them. Everything that says when is in whole seconds since 1970-01-01T00:00:00Z.
-- deploy/postgres/roles.sql makes the roles; what they may do is at the end of this file.

-- ---- statements ----------------------------------------------------------------------------------------

-- Rosters and enrolments that the recovery log names. A row proves nothing: readers match the digest with the
-- leaf and verify the statement up to the root key.
CREATE TABLE trust_statements (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    id uuid,
    type text NOT NULL,
    envelope bytea NOT NULL,
    leaf_index bigint NOT NULL UNIQUE CHECK (leaf_index >= 0)
);
CREATE INDEX trust_statements_by_id ON trust_statements (id);

CREATE TABLE escrow_statements (
    id uuid PRIMARY KEY,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    principal text NOT NULL,
    envelope bytea NOT NULL,
    leaf_index bigint NOT NULL UNIQUE CHECK (leaf_index >= 0),
    stored_at bigint NOT NULL
);
-- Key blobs are ciphertext: trying to compress them is lost work.
ALTER TABLE escrow_statements ALTER COLUMN envelope SET STORAGE EXTERNAL;

CREATE TABLE records (
    id uuid PRIMARY KEY,
    statement_id uuid NOT NULL REFERENCES escrow_statements,
    position smallint NOT NULL CHECK (position >= 0),
    principal text NOT NULL,
    name text NOT NULL,
    issued_at bigint NOT NULL,
    kid text NOT NULL
);
-- The newest record of a name is the first entry (SPEC 4.4).
CREATE INDEX records_newest_of_name ON records (principal, name, issued_at DESC, id DESC);
CREATE INDEX records_of_principal ON records (principal, id);

CREATE TABLE requests (
    id uuid PRIMARY KEY,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    requester text NOT NULL,
    requester_kind text NOT NULL CHECK (requester_kind IN ('principal', 'officer')),
    principal text NOT NULL,
    envelope bytea NOT NULL,
    leaf_index bigint NOT NULL UNIQUE CHECK (leaf_index >= 0),
    received_at bigint NOT NULL
);

CREATE TABLE releases (
    request_id uuid PRIMARY KEY REFERENCES requests,
    envelope bytea NOT NULL,
    leaf_index bigint NOT NULL UNIQUE CHECK (leaf_index >= 0)
);
ALTER TABLE releases ALTER COLUMN envelope SET STORAGE EXTERNAL;

-- A record with a row here was disclosed.
CREATE TABLE released_records (
    record_id uuid REFERENCES records,
    request_id uuid REFERENCES requests,
    PRIMARY KEY (record_id, request_id)
);

CREATE TABLE refusals (
    request_id uuid PRIMARY KEY,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    code text NOT NULL,
    leaf_index bigint NOT NULL UNIQUE CHECK (leaf_index >= 0)
);

-- ---- logs (SPEC 7.4) -----------------------------------------------------------------------------------

-- Node (level, index) is the hash of the complete subtree over the 2^level leaves from leaf index * 2^level on.
CREATE TABLE escrow_leaves (
    index bigint PRIMARY KEY CHECK (index >= 0),
    leaf bytea NOT NULL CHECK (octet_length(leaf) <= 65535)
);
CREATE TABLE escrow_nodes (
    level smallint CHECK (level BETWEEN 0 AND 62),
    index bigint CHECK (index >= 0),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (level, index)
);
CREATE TABLE escrow_checkpoints (
    size bigint PRIMARY KEY CHECK (size > 0),
    note text NOT NULL
);

CREATE TABLE recovery_leaves (
    index bigint PRIMARY KEY CHECK (index >= 0),
    leaf bytea NOT NULL CHECK (octet_length(leaf) <= 65535)
);
CREATE TABLE recovery_nodes (
    level smallint CHECK (level BETWEEN 0 AND 62),
    index bigint CHECK (index >= 0),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (level, index)
);
CREATE TABLE recovery_checkpoints (
    size bigint PRIMARY KEY CHECK (size > 0),
    note text NOT NULL
);

-- ---- privileges ----------------------------------------------------------------------------------------
-- The least that each role works with. Nobody but the owner may change or delete a row.

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO strongroom_escrow, strongroom_recovery, strongroom_auditor;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, strongroom_escrow, strongroom_recovery, strongroom_auditor;

GRANT SELECT ON schema_migrations TO strongroom_escrow, strongroom_recovery, strongroom_auditor;

-- The escrow worker hands envelopes in and cannot take one out again.
GRANT INSERT ON escrow_statements, records, escrow_leaves, escrow_nodes, escrow_checkpoints TO strongroom_escrow;
GRANT SELECT (id, digest, leaf_index) ON escrow_statements TO strongroom_escrow;
GRANT SELECT (id, statement_id) ON records TO strongroom_escrow;
GRANT SELECT ON escrow_leaves, escrow_nodes, escrow_checkpoints TO strongroom_escrow;
GRANT SELECT ON recovery_leaves, recovery_nodes, recovery_checkpoints, trust_statements TO strongroom_escrow;

GRANT SELECT ON ALL TABLES IN SCHEMA public TO strongroom_recovery;
GRANT INSERT ON trust_statements, requests, releases, released_records, refusals,
    recovery_leaves, recovery_nodes, recovery_checkpoints TO strongroom_recovery;

-- Auditors compare releases by the digest in the log; the sealed keys are none of their business.
GRANT SELECT ON trust_statements, escrow_statements, records, requests, released_records, refusals,
    escrow_leaves, escrow_nodes, escrow_checkpoints,
    recovery_leaves, recovery_nodes, recovery_checkpoints TO strongroom_auditor;
GRANT SELECT (request_id, leaf_index) ON releases TO strongroom_auditor;
