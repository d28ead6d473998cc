-- What auditors are shown of a log; {log} is escrow or recovery.
-- roles: strongroom_recovery

-- name: leaves
-- The leaves from index $1 up to, not including, index $2.
SELECT index, leaf FROM {log}_leaves WHERE index >= $1 AND index < $2

-- name: nodes
-- Those of these nodes that exist.
SELECT n.level, n.index, n.hash
FROM unnest($1::smallint[], $2::bigint[]) AS w (level, index)
JOIN {log}_nodes AS n ON n.level = w.level AND n.index = w.index

-- name: escrow_sizes
-- How long the statements are, in bytes, whose leaves are from index $1 up to, not including, index $2.
SELECT leaf_index, octet_length(envelope) AS bytes FROM escrow_statements
WHERE leaf_index >= $1 AND leaf_index < $2

-- name: escrow_envelopes
-- The statements of these leaves.
SELECT leaf_index, envelope FROM escrow_statements WHERE leaf_index = ANY ($1::bigint[])

-- name: recovery_sizes
-- How long the statements are, in bytes, whose leaves are from index $1 up to, not including, index $2.
SELECT leaf_index, octet_length(envelope) AS bytes FROM trust_statements
WHERE leaf_index >= $1 AND leaf_index < $2
UNION ALL
SELECT leaf_index, octet_length(envelope) FROM requests WHERE leaf_index >= $1 AND leaf_index < $2

-- name: recovery_envelopes
-- The statements of these leaves.
SELECT leaf_index, envelope FROM trust_statements WHERE leaf_index = ANY ($1::bigint[])
UNION ALL
SELECT leaf_index, envelope FROM requests WHERE leaf_index = ANY ($1::bigint[])

-- name: rows
-- The first $3 record ids that the index has at each leaf of the escrow log from index $1 up to, not including, $2.
SELECT leaf_index, (array_agg(id ORDER BY id))[1:$3::integer] AS ids FROM records
WHERE leaf_index >= $1 AND leaf_index < $2 GROUP BY leaf_index

-- name: releases
-- The places of the recovery log from index $1 up to, not including, $2 that a release is stored for.
SELECT leaf_index FROM releases WHERE leaf_index >= $1 AND leaf_index < $2

-- name: escrow_published
-- The newest $2 checkpoints proper of the escrow log that are of at most $1 leaves.
SELECT size, note FROM escrow_published WHERE size <= $1 ORDER BY size DESC LIMIT $2
