-- What coverage asks of the index of records (SPEC 5.14).
-- roles: strongroom_recovery

-- name: held
-- Of each principal from $1 up to $2 that has records: how many names, how many of them with a newest record within
-- the ranges of leaves from $3 up to $4, when the newest of all was issued, and how many of the names $5. From the
-- index records_newest_of_name alone, in one pass: there may be millions.
WITH clean AS MATERIALIZED (
    SELECT coalesce(range_agg(int8range(first, stop)), '{}') AS leaves
    FROM unnest($3::bigint[], $4::bigint[]) AS r (first, stop)
)
SELECT principal,
    count(*) AS names,
    count(*) FILTER (WHERE leaf_index <@ (SELECT leaves FROM clean)) AS clean,
    max(issued_at) AS issued_at,
    count(*) FILTER (WHERE name = ANY ($5::text[])) AS expected
FROM (
    SELECT DISTINCT ON (principal, name) principal, name, issued_at, leaf_index
    FROM records WHERE principal BETWEEN $1 AND $2
    ORDER BY principal, name, issued_at DESC, id DESC
) AS newest
GROUP BY principal

-- name: newest
-- The newest records of the names of the principals $1, where they are not within the ranges of leaves from $2 up to
-- $3.
WITH clean AS MATERIALIZED (
    SELECT coalesce(range_agg(int8range(first, stop)), '{}') AS leaves
    FROM unnest($2::bigint[], $3::bigint[]) AS r (first, stop)
)
SELECT id, principal, name, leaf_index, false AS is_clean, true AS is_newest
FROM (
    SELECT DISTINCT ON (principal, name) principal, name, id, leaf_index
    FROM records WHERE principal = ANY ($1::text[])
    ORDER BY principal, name, issued_at DESC, id DESC
) AS newest
WHERE NOT leaf_index <@ (SELECT leaves FROM clean)

-- name: names
-- Which of the names $2 each of the principals $1 has, of those that have any.
SELECT DISTINCT principal, name FROM records WHERE principal = ANY ($1::text[]) AND name = ANY ($2::text[])

-- name: by_id
-- Those of the records $1 that exist, whether their leaf is within the ranges from $2 up to $3, and whether they are
-- the newest of their name.
WITH clean AS MATERIALIZED (
    SELECT coalesce(range_agg(int8range(first, stop)), '{}') AS leaves
    FROM unnest($2::bigint[], $3::bigint[]) AS r (first, stop)
)
SELECT r.id, r.principal, r.name, r.leaf_index, r.leaf_index <@ (SELECT leaves FROM clean) AS is_clean,
    NOT EXISTS (
        SELECT FROM records AS n
        WHERE n.principal = r.principal AND n.name = r.name AND (n.issued_at, n.id) > (r.issued_at, r.id)
    ) AS is_newest
FROM records AS r WHERE r.id = ANY ($1::uuid[])

-- name: unclean
-- The records of the principals $1 whose statements are not within the ranges of leaves from $2 up to $3.
WITH clean AS MATERIALIZED (
    SELECT coalesce(range_agg(int8range(first, stop)), '{}') AS leaves
    FROM unnest($2::bigint[], $3::bigint[]) AS r (first, stop)
)
SELECT r.id, r.principal, r.name, r.leaf_index, false AS is_clean,
    NOT EXISTS (
        SELECT FROM records AS n
        WHERE n.principal = r.principal AND n.name = r.name AND (n.issued_at, n.id) > (r.issued_at, r.id)
    ) AS is_newest
FROM records AS r
WHERE r.principal = ANY ($1::text[]) AND NOT r.leaf_index <@ (SELECT leaves FROM clean)

-- name: by_leaf
-- For each of the places $1 of the escrow log, with a record id of $2 or null for all of its records: what the index
-- names there, and the leaf and the owner of the statement there, as far as they exist.
SELECT w.leaf_index, w.record, r.id, r.principal,
    (SELECT leaf FROM escrow_leaves WHERE index = w.leaf_index) AS leaf,
    (SELECT s.principal FROM escrow_statements AS s WHERE s.leaf_index = w.leaf_index) AS owner
FROM unnest($1::bigint[], $2::uuid[]) AS w (leaf_index, record)
LEFT JOIN records AS r ON r.leaf_index = w.leaf_index AND (w.record IS NULL OR r.id = w.record)

-- name: superseding
-- Which records are said to take the place of any of the records $1.
SELECT w.id, r.id AS by, r.principal, r.leaf_index
FROM unnest($1::uuid[]) AS w (id)
JOIN records AS r ON r.supersedes @> ARRAY[w.id] AND r.supersedes <> '{}'

-- name: stored_at
-- When the statements at these places of the escrow log were stored, as far as they exist.
SELECT leaf_index, stored_at FROM escrow_statements WHERE leaf_index = ANY ($1::bigint[])

-- name: labelled
-- Those of the principals $1 that have a record whose label $2 is $3.
SELECT DISTINCT principal FROM records
WHERE principal = ANY ($1::text[]) AND labels @> jsonb_build_object(coalesce($2::text, ''), $3::text)
