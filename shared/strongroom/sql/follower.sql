-- What a reader of the recovery log asks.
-- roles: strongroom_escrow, strongroom_recovery

-- name: head
-- The newest working checkpoint.
SELECT size, note FROM recovery_checkpoints ORDER BY size DESC LIMIT 1

-- name: next_checkpoint
-- The largest working checkpoint at most $2 leaves beyond size $1, or else the next one at all.
SELECT size, note FROM recovery_checkpoints
WHERE size = coalesce(
    (SELECT max(size) FROM recovery_checkpoints WHERE size > $1 AND size <= $1 + $2::bigint),
    (SELECT min(size) FROM recovery_checkpoints WHERE size > $1)
)

-- name: leaves
-- The leaves from index $1 up to, not including, index $2.
SELECT index, leaf FROM recovery_leaves WHERE index >= $1 AND index < $2 ORDER BY index

-- name: leaf_hashes
-- The stored hashes of the leaves from index $1 up to, not including, index $2.
SELECT index, hash FROM recovery_nodes WHERE level = 0 AND index >= $1 AND index < $2

-- name: trust_statements
-- The rosters and enrolments with these digests that exist.
SELECT digest, envelope FROM trust_statements WHERE digest = ANY ($1::bytea[])
