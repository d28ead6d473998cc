-- What a restore drill asks of a database that it does not believe, beside what a recovery worker asks.
-- roles: strongroom_recovery, strongroom_auditor

-- name: is_ours
-- Whether there is a register of migrations at all.
SELECT to_regclass('public.schema_migrations') IS NOT NULL

-- name: recovery_leaf
-- A leaf of the recovery log by its index.
SELECT leaf FROM recovery_leaves WHERE index = $1

-- name: escrow_leaf
-- A leaf of the escrow log by its index.
SELECT leaf FROM escrow_leaves WHERE index = $1

-- name: trust_statement
-- The statement with this digest that the recovery log names.
SELECT envelope FROM trust_statements WHERE digest = $1 LIMIT 1

-- name: rosters
-- All rosters that the recovery log names, by what the rows say.
SELECT envelope FROM trust_statements WHERE type = $1 ORDER BY leaf_index

-- name: recovery_size
-- The number of leaves under the newest working checkpoint of the recovery log.
SELECT max(size) FROM recovery_checkpoints

-- name: escrow_size
-- The number of leaves under the newest working checkpoint of the escrow log.
SELECT max(size) FROM escrow_checkpoints

-- name: counts
-- How many escrow statements and records there are.
SELECT (SELECT count(*) FROM escrow_statements) AS statements, (SELECT count(*) FROM records) AS records

-- name: kids
-- The sealing keys that the newest blobs of records are sealed to, and how many records each.
WITH newest AS (
    SELECT DISTINCT ON (record_id) record_id, kid FROM resealed_blobs ORDER BY record_id, leaf_index DESC, kid
)
SELECT left(coalesce(n.kid, r.kid), 33) AS kid, count(*) AS records
FROM records AS r LEFT JOIN newest AS n ON n.record_id = r.id GROUP BY 1 ORDER BY 1

-- name: unstored
-- The first $2 of the leaves below index $1 whose escrow statement is not there.
SELECT l.index, l.leaf
FROM escrow_leaves AS l LEFT JOIN escrow_statements AS s ON s.leaf_index = l.index
WHERE s.id IS NULL AND l.index < $1 ORDER BY l.index LIMIT $2

-- name: sample
-- $2 records, picked by the seed $1: whoever wrote the rows could not know which ones.
SELECT id::text, statement_id::text, principal, name, issued_at, kid
FROM records ORDER BY sha256($1::bytea || uuid_send(id)), id LIMIT $2

-- name: statements_after
-- The next $2 escrow statements behind leaf index $1.
SELECT leaf_index, id::text FROM escrow_statements WHERE leaf_index > $1 ORDER BY leaf_index LIMIT $2

-- name: records_by_id
-- The index entries of these records.
SELECT id::text, statement_id::text, principal, name, issued_at, kid FROM records WHERE id = ANY ($1::uuid[])

-- name: records_of_statement
-- The index entries of a statement's records.
SELECT id::text, statement_id::text, principal, name, issued_at, kid
FROM records WHERE statement_id = $1 ORDER BY position
