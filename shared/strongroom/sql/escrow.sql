-- What the escrow worker asks and writes, apart from the logs.
-- roles: strongroom_escrow

-- name: existing_statements
-- Which of these statement ids are taken, by what digest, and where in the log.
SELECT id, digest, leaf_index FROM escrow_statements WHERE id = ANY ($1::uuid[])

-- name: existing_records
-- Which of these record ids are taken, and by which statement.
SELECT id, statement_id FROM records WHERE id = ANY ($1::uuid[])

-- name: existing_wrapped
-- Which of these wrapped keys were escrowed before, and by whom first.
SELECT DISTINCT ON (wrapped) wrapped, principal FROM records
WHERE wrapped = ANY ($1::bytea[]) ORDER BY wrapped, leaf_index

-- name: insert_statements
-- The statements of a batch, verbatim.
INSERT INTO escrow_statements (id, digest, principal, envelope, leaf_index, stored_at)
SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::text[], $4::bytea[], $5::bigint[], $6::bigint[])

-- name: insert_records
-- One index row a record; the record itself stands in its statement.
INSERT INTO records (
    id, statement_id, position, principal, name, issued_at, kid, leaf_index, labels, supersedes, wrapped
)
SELECT id, statement_id, position, principal, name, issued_at, kid, leaf_index, labels::jsonb,
    string_to_array(supersedes, ',')::uuid[], wrapped
FROM unnest(
    $1::uuid[], $2::uuid[], $3::smallint[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::bigint[],
    $9::text[], $10::text[], $11::bytea[]
) AS given (id, statement_id, position, principal, name, issued_at, kid, leaf_index, labels, supersedes, wrapped)

-- name: publish
-- The newest checkpoint proper, which everybody may see.
INSERT INTO escrow_published (size, note) VALUES ($1, $2) ON CONFLICT DO NOTHING
