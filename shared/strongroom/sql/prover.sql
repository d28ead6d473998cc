-- What the prover asks, apart from the logs; it writes nothing but leaves.
-- roles: strongroom_recovery

-- name: claim
-- Whether block $1 of the escrow log is this transaction's now, and nobody else's until its end.
SELECT pg_try_advisory_xact_lock(1400140398, $1)

-- name: leaves
-- The leaves from index $1 up to, not including, $2; none is longer than a leaf may be.
SELECT index, substr(leaf, 1, 65535) FROM escrow_leaves WHERE index >= $1 AND index < $2

-- name: nodes
-- Of each level $1 the nodes from index $2 to index $3 that exist, a row a level: their indexes and their hashes.
SELECT w.level, array_agg(n.index), array_agg(n.hash)
FROM unnest($1::smallint[], $2::bigint[], $3::bigint[]) AS w (level, low, high)
JOIN escrow_nodes AS n ON n.level = w.level AND n.index BETWEEN w.low AND w.high
GROUP BY w.level

-- name: statements
-- One statement a leaf from $1 up to, not including, $2, and how many there are. No envelope longer than $3 bytes
-- comes, and none after the first $4 bytes of envelopes, counted in order; `reach` is the sum up to and with it.
WITH found AS (
    SELECT DISTINCT ON (leaf_index) leaf_index, id, digest, principal, envelope,
        count(*) OVER (PARTITION BY leaf_index) AS count
    FROM escrow_statements WHERE leaf_index >= $1 AND leaf_index < $2
    ORDER BY leaf_index
), summed AS (
    SELECT *, octet_length(envelope) <= $3 AS fits,
        sum(CASE WHEN octet_length(envelope) <= $3 THEN octet_length(envelope) ELSE 0 END)
            OVER (ORDER BY leaf_index) AS reach
    FROM found
)
SELECT leaf_index, id::text, substr(digest, 1, 33) AS digest, left(principal, 65) AS principal, count, fits,
    reach <= $4 AS is_within, CASE WHEN fits AND reach <= $4 THEN envelope END AS envelope
FROM summed ORDER BY leaf_index

-- name: records
-- At most $3 index rows of the leaves from $1 up to, not including, $2.
SELECT leaf_index, coalesce(id::text, ''), statement_id::text, position, left(principal, 65), left(name, 129), issued_at,
    left(kid, 33), coalesce(left(labels::text, 65536), ''), left(array_to_string(supersedes, ','), 1024),
    coalesce(encode(substr(wrapped, 1, 33), 'hex'), '')
FROM records WHERE leaf_index >= $1 AND leaf_index < $2 ORDER BY leaf_index LIMIT $3

-- name: resealed
-- Of each record of the leaves from $1 up to, not including, $2 that was sealed again, the newest key blob. None
-- longer than $3 bytes comes, and none after the first $4 bytes, counted in order of leaf and record.
WITH newest AS (
    SELECT DISTINCT ON (r.leaf_index, r.id) r.leaf_index, r.id, b.kid, b.suite, b.blob
    FROM records AS r JOIN resealed_blobs AS b ON b.record_id = r.id
    WHERE r.leaf_index >= $1 AND r.leaf_index < $2
    ORDER BY r.leaf_index, r.id, b.leaf_index DESC, b.kid
), summed AS (
    SELECT *, octet_length(blob) <= $3 AS fits,
        sum(CASE WHEN octet_length(blob) <= $3 THEN octet_length(blob) ELSE 0 END)
            OVER (ORDER BY leaf_index, id) AS reach
    FROM newest
)
SELECT leaf_index, coalesce(id::text, ''), left(kid, 33), left(suite, 17), reach <= $4,
    CASE WHEN fits AND reach <= $4 THEN blob END
FROM summed ORDER BY leaf_index, id
