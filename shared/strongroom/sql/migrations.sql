-- The register of applied migrations. Only the owner writes it.
-- roles: strongroom_owner

-- name: create_register
-- Makes the register of an empty database.
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY CHECK (version > 0),
    name text NOT NULL,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: lock
-- Keeps other migrations out until the end of the transaction.
SELECT pg_advisory_xact_lock(1400140397, 0)

-- name: applied
-- Everything applied so far.
SELECT version, name, digest FROM schema_migrations ORDER BY version

-- name: record
-- Notes a migration as applied.
INSERT INTO schema_migrations (version, name, digest) VALUES ($1, $2, $3)

-- name: missing_roles
-- Those of the named roles that the server does not know.
SELECT name FROM unnest($1::text[]) AS name WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)

-- name: mutable_tables
-- Who besides the owner may change or delete rows, and where.
SELECT DISTINCT c.relname AS "table", coalesce(r.rolname, 'PUBLIC') AS role, a.privilege_type AS privilege
FROM pg_class AS c
CROSS JOIN LATERAL (
    SELECT c.relacl AS acl UNION ALL SELECT attacl FROM pg_attribute WHERE attrelid = c.oid
) AS granted
CROSS JOIN LATERAL aclexplode(granted.acl) AS a
LEFT JOIN pg_roles AS r ON r.oid = a.grantee
WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner
  AND a.privilege_type IN ('UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER')
ORDER BY 1, 2, 3

-- name: settings
-- The server's settings that durability stands on.
SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes')
