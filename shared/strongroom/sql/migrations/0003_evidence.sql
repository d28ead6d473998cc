-- What proves that keys can be given back, and what shows where they are missing (SPEC 5.12 to 5.15).
--
-- The index of records gains the place of each in the escrow log, its labels, and what it takes the place of.
-- Like every column of an index it is believed by nobody: the signed statement says the same.

ALTER TABLE records ADD COLUMN leaf_index bigint;
ALTER TABLE records ADD COLUMN labels jsonb NOT NULL DEFAULT '{}';
ALTER TABLE records ADD COLUMN supersedes uuid[] NOT NULL DEFAULT '{}';

UPDATE records AS r SET leaf_index = s.leaf_index FROM escrow_statements AS s WHERE s.id = r.statement_id;

-- Labels of what is stored already stand in the signed bodies. A statement that somebody has spoilt stops nobody:
-- its records keep no labels, and the prover names it.
DO $$
DECLARE
    stored record;
    body jsonb;
BEGIN
    FOR stored IN SELECT id, envelope FROM escrow_statements LOOP
        BEGIN
            body := convert_from(
                decode(convert_from(stored.envelope, 'UTF8')::jsonb ->> 'payload', 'base64'), 'UTF8'
            )::jsonb;
            UPDATE records AS r SET labels = e.signed -> 'labels'
            FROM jsonb_array_elements(body -> 'records') AS e (signed)
            WHERE r.statement_id = stored.id AND r.id = (e.signed ->> 'id')::uuid
                AND e.signed -> 'labels' <> '{}';
        EXCEPTION WHEN data_exception OR null_value_not_allowed OR not_null_violation THEN
            RAISE NOTICE 'statement % cannot be read', stored.id;
        END;
    END LOOP;
END
$$;

ALTER TABLE records ALTER COLUMN leaf_index SET NOT NULL;
ALTER TABLE records ADD CHECK (leaf_index >= 0);

-- Coverage reads the newest record of every name from this index alone, for principals that follow each other in the
-- order of their bytes, whatever the order of the database's language is.
ALTER TABLE records ALTER COLUMN principal TYPE text COLLATE "C";
DROP INDEX records_newest_of_name;
CREATE INDEX records_newest_of_name ON records (principal, name, issued_at DESC, id DESC) INCLUDE (leaf_index);
CREATE INDEX records_by_leaf ON records (leaf_index);
CREATE INDEX records_superseding ON records USING gin (supersedes) WHERE supersedes <> '{}';

-- Checkpoints proper of the escrow log, for auditors: each was signed after the COMMIT of all its leaves (SPEC 7.5).
CREATE TABLE escrow_published (
    size bigint PRIMARY KEY CHECK (size > 0),
    note text NOT NULL
);

GRANT SELECT, INSERT ON escrow_published TO strongroom_escrow;
GRANT SELECT ON escrow_published TO strongroom_recovery, strongroom_auditor;
