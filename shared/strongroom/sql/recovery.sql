-- What the recovery worker asks and writes, apart from the logs.
-- roles: strongroom_recovery

-- name: trust_statements
-- The statements at these places in the recovery log that exist.
SELECT leaf_index, envelope FROM trust_statements WHERE leaf_index = ANY ($1::bigint[])

-- name: insert_trust_statement
-- A statement that a leaf of the recovery log names, verbatim; a roster has no id.
INSERT INTO trust_statements (digest, id, type, envelope, leaf_index) VALUES ($1, $2, $3, $4, $5)

-- name: requests
-- Those of these requests that exist, verbatim.
SELECT id, envelope FROM requests WHERE id = ANY ($1::uuid[])

-- name: insert_request
-- A request of a known requester, verbatim.
INSERT INTO requests (id, digest, requester, requester_kind, principal, envelope, leaf_index, received_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: release
-- The release at this place in the recovery log, verbatim.
SELECT envelope FROM releases WHERE leaf_index = $1

-- name: insert_release
-- A release whose leaf was committed before, verbatim.
INSERT INTO releases (request_id, envelope, leaf_index) VALUES ($1, $2, $3)

-- name: records_by_id
-- Those of the records $2 that principal $1 has.
SELECT id, statement_id, principal, name, issued_at, kid
FROM records WHERE principal = $1 AND id = ANY ($2::uuid[])

-- name: records_by_name
-- The newest $3 records of principal $1 under name $2, newest first.
SELECT id, statement_id, principal, name, issued_at, kid
FROM records WHERE principal = $1 AND name = $2 ORDER BY issued_at DESC, id DESC LIMIT $3

-- name: records_page
-- The first $3 records of principal $1 whose ids come after $2; null is before all of them. A row whose id is no
-- UUIDv7 is of no record that anybody could have signed, and no listing can name it.
SELECT id, statement_id, principal, name, issued_at, kid
FROM records
WHERE principal = $1 AND ($2::uuid IS NULL OR id > $2) AND id::text ~ '^.{14}7.{4}[89ab]'
ORDER BY id LIMIT $3

-- name: records_superseding
-- The records of principal $1 that are said to take the place of any of the records $2.
SELECT id, statement_id, principal, name, issued_at, kid
FROM records WHERE principal = $1 AND supersedes && $2::uuid[] AND supersedes <> '{}' ORDER BY id

-- name: records_wrapped
-- Of each of these wrapped keys the record that was escrowed first.
SELECT DISTINCT ON (wrapped) id, statement_id, principal, name, issued_at, kid
FROM records WHERE wrapped = ANY ($1::bytea[]) ORDER BY wrapped, leaf_index, position

-- name: resealed
-- Key blobs of the records $1 that were sealed again to one of the keys $2, none longer than $3 bytes, newest first;
-- and none after the first $4 bytes, counted so that the newest of every record come before all others.
WITH found AS (
    SELECT record_id, kid, octet_length(blob) AS bytes,
        row_number() OVER (PARTITION BY record_id ORDER BY leaf_index DESC, kid) AS place
    FROM resealed_blobs WHERE record_id = ANY ($1::uuid[]) AND kid = ANY ($2::text[]) AND octet_length(blob) <= $3
), summed AS (
    SELECT *, sum(bytes) OVER (ORDER BY place, record_id) AS reach FROM found
)
SELECT s.record_id, s.kid, left(b.suite, 17), b.blob
FROM summed AS s JOIN resealed_blobs AS b USING (record_id, kid)
WHERE s.reach <= $4 ORDER BY s.record_id, s.place

-- name: escrow_head
-- The newest working checkpoint of the escrow log.
SELECT note FROM escrow_checkpoints ORDER BY size DESC LIMIT 1

-- name: escrow_statement
-- An escrow statement, verbatim, and the leaf of the escrow log that ought to name it.
SELECT s.digest, s.principal, s.envelope, s.leaf_index, l.leaf
FROM escrow_statements AS s LEFT JOIN escrow_leaves AS l ON l.index = s.leaf_index
WHERE s.id = $1

-- name: escrow_nodes
-- Those of these nodes of the escrow log that exist.
SELECT n.level, n.index, n.hash
FROM unnest($1::smallint[], $2::bigint[]) AS w (level, index)
JOIN escrow_nodes AS n ON n.level = w.level AND n.index = w.index
