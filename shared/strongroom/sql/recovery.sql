-- What the recovery worker asks and writes, apart from the logs.
-- roles: strongroom_recovery

-- name: trust_statement
-- The enrolment with this id, the one with digest $2 first: its digest and its place in the recovery log.
SELECT digest, leaf_index FROM trust_statements WHERE id = $1 ORDER BY digest = $2::bytea DESC LIMIT 1

-- name: insert_trust_statement
-- A roster (without an id) or an enrolment, verbatim.
INSERT INTO trust_statements (digest, id, type, envelope, leaf_index) VALUES ($1, $2, $3, $4, $5)

-- name: answer
-- What a request id was answered with: a release, a refusal, or nothing where it was never asked.
SELECT coalesce(r.digest, f.digest) AS digest, e.envelope, f.code,
       coalesce(e.leaf_index, f.leaf_index) AS leaf_index
FROM (SELECT $1::uuid AS id) AS asked
LEFT JOIN requests AS r ON r.id = asked.id
LEFT JOIN releases AS e ON e.request_id = asked.id
LEFT JOIN refusals AS f ON f.request_id = asked.id

-- name: insert_request
-- A request of a known requester, verbatim.
INSERT INTO requests (id, digest, requester, requester_kind, principal, envelope, leaf_index, received_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: insert_release
-- The release that answers a request, verbatim, and the records that it discloses.
WITH new_release AS (
    INSERT INTO releases (request_id, envelope, leaf_index) VALUES ($1, $2, $3)
)
INSERT INTO released_records (record_id, request_id) SELECT record_id, $1 FROM unnest($4::uuid[]) AS record_id

-- name: insert_refusal
-- The refusal that answers a request.
INSERT INTO refusals (request_id, digest, code, leaf_index) VALUES ($1, $2, $3, $4)

-- name: records_by_id
-- Those of the records $2 that principal $1 has.
SELECT id, statement_id, principal, name, issued_at, kid,
       EXISTS (SELECT FROM released_records WHERE record_id = records.id) AS disclosed
FROM records WHERE principal = $1 AND id = ANY ($2::uuid[])

-- name: records_by_name
-- The newest $3 records of principal $1 under name $2, newest first.
SELECT id, statement_id, principal, name, issued_at, kid,
       EXISTS (SELECT FROM released_records WHERE record_id = records.id) AS disclosed
FROM records WHERE principal = $1 AND name = $2 ORDER BY issued_at DESC, id DESC LIMIT $3

-- name: records_page
-- The first $3 records of principal $1 whose ids come after $2; null is before all of them.
SELECT id, statement_id, principal, name, issued_at, kid,
       EXISTS (SELECT FROM released_records WHERE record_id = records.id) AS disclosed
FROM records WHERE principal = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3

-- name: escrow_head
-- The newest checkpoint of the escrow log.
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
