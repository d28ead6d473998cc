-- What sealing again asks and writes, apart from the logs.
-- roles: strongroom_recovery

-- name: claim
-- Whether block $1 of the escrow log is this transaction's to seal again now, and nobody else's until its end.
SELECT pg_try_advisory_xact_lock(1400140399, $1)

-- name: insert
-- The blobs $4 of the records $1, sealed to key $2 of suite $3, by leaf $5 of the recovery log. A record that has a
-- blob to this key keeps it.
INSERT INTO resealed_blobs (record_id, kid, suite, blob, leaf_index)
SELECT w.record_id, $2, $3, w.blob, $5
FROM unnest($1::text[]::uuid[], $4::bytea[]) AS w (record_id, blob)
ON CONFLICT DO NOTHING

-- name: others
-- Those of the records $1 whose blob to key $2 is not by leaf $3.
SELECT record_id::text FROM resealed_blobs
WHERE record_id = ANY ($1::text[]::uuid[]) AND kid = $2 AND leaf_index <> $3

-- name: outdated
-- Those of the records $1 that were sealed to key $2 before they were sealed to another.
SELECT DISTINCT n.record_id::text
FROM resealed_blobs AS o JOIN resealed_blobs AS n USING (record_id)
WHERE o.record_id = ANY ($1::text[]::uuid[]) AND o.kid = $2 AND (n.leaf_index, o.kid) > (o.leaf_index, n.kid)

-- name: kids
-- How many records there are by the sealing key of their newest blob. Nothing is decided by it.
WITH newest AS (
    SELECT DISTINCT ON (record_id) record_id, kid FROM resealed_blobs ORDER BY record_id, leaf_index DESC, kid
)
SELECT left(coalesce(n.kid, r.kid), 33) AS kid, count(*) AS records
FROM records AS r LEFT JOIN newest AS n ON n.record_id = r.id GROUP BY 1 ORDER BY 1

-- name: within
-- How many records there are in the ranges of leaves from $1 up to, not including, $2.
SELECT count(*) FROM unnest($1::bigint[], $2::bigint[]) AS w (low, high)
JOIN records AS r ON r.leaf_index >= w.low AND r.leaf_index < w.high

-- name: principals
-- Whose records those of the leaves $1 are. Nothing is decided by it.
SELECT DISTINCT ON (leaf_index) leaf_index, left(principal, 65) AS principal FROM records
WHERE leaf_index = ANY ($1::bigint[]) ORDER BY leaf_index, principal
