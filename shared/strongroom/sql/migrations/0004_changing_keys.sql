-- Sealing keys that change, and keys that other programs wrapped (SPEC 4.6, 7.7).

-- A key blob that was sealed again, to another sealing key. The statement and its own blob stay as they are. A row is
-- believed by nobody: it opens in its record's place, to the key of the fingerprint that the owner signed, or it is
-- no blob of that record.
CREATE TABLE resealed_blobs (
    record_id uuid NOT NULL REFERENCES records,
    kid text NOT NULL,
    suite text NOT NULL,
    blob bytea NOT NULL,
    leaf_index bigint NOT NULL CHECK (leaf_index >= 0),
    PRIMARY KEY (record_id, kid)
);
ALTER TABLE resealed_blobs ALTER COLUMN blob SET STORAGE EXTERNAL;
CREATE INDEX resealed_blobs_newest ON resealed_blobs (record_id, leaf_index DESC, kid);

GRANT SELECT, INSERT ON resealed_blobs TO strongroom_recovery;
GRANT SELECT ON resealed_blobs TO strongroom_auditor;

-- The SHA-256 of the encrypted key inside what another program wrapped: the first escrow of one wins.
ALTER TABLE records ADD COLUMN wrapped bytea CHECK (octet_length(wrapped) = 32);
CREATE INDEX records_wrapped ON records (wrapped, leaf_index) WHERE wrapped IS NOT NULL;

GRANT SELECT (principal, leaf_index, wrapped) ON records TO strongroom_escrow;

-- After a change of its key the escrow log signs the newest checkpoint again: the same size, another note.
ALTER TABLE escrow_published DROP CONSTRAINT escrow_published_pkey, ADD PRIMARY KEY (size, note);
