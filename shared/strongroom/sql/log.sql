-- What the writer of a log does; {log} is escrow or recovery.
-- roles: strongroom_{log}

-- name: lock
-- Waits until no other transaction is writing this log, and keeps others out until the end of this one.
SELECT pg_advisory_xact_lock(1400140397, $1)

-- name: head
-- The newest working checkpoint.
SELECT size, note FROM {log}_checkpoints ORDER BY size DESC LIMIT 1

-- name: checkpoint
-- The working checkpoint over the first $1 leaves.
SELECT note FROM {log}_checkpoints WHERE size = $1

-- name: leaves
-- The leaves with these indexes that exist.
SELECT index, leaf FROM {log}_leaves WHERE index = ANY ($1::bigint[])

-- name: nodes
-- The hashes of these nodes in the order asked, null for one that is missing.
SELECT (SELECT hash FROM {log}_nodes AS n WHERE n.level = w.level AND n.index = w.index)
FROM unnest($1::smallint[], $2::bigint[]) WITH ORDINALITY AS w (level, index, place)
ORDER BY w.place

-- name: append
-- Adds leaves from index $1 on, the nodes that they complete, and the working checkpoint; counts what was not there yet.
WITH new_leaves AS (
    INSERT INTO {log}_leaves (index, leaf)
    SELECT $1::bigint + place - 1, leaf FROM unnest($2::bytea[]) WITH ORDINALITY AS given (leaf, place)
    ON CONFLICT DO NOTHING
    RETURNING index
), new_nodes AS (
    INSERT INTO {log}_nodes (level, index, hash)
    SELECT * FROM unnest($3::smallint[], $4::bigint[], $5::bytea[])
    ON CONFLICT DO NOTHING
    RETURNING level
), new_checkpoint AS (
    INSERT INTO {log}_checkpoints (size, note) VALUES ($6, $7)
    ON CONFLICT DO NOTHING
    RETURNING size
)
SELECT (SELECT count(*) FROM new_leaves) AS leaves,
       (SELECT count(*) FROM new_nodes) AS nodes,
       (SELECT count(*) FROM new_checkpoint) AS checkpoints
