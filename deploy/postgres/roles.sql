-- The database of one authority and the four roles that may enter it. Run it with psql 15 or later as a superuser;
-- running it again brings roles and privileges back to what stands here. Privileges on tables come with the
-- migrations (`strongroom db migrate`).
--
--   STRONGROOM_OWNER_PASSWORD=… STRONGROOM_ESCROW_PASSWORD=… \
--   STRONGROOM_RECOVERY_PASSWORD=… STRONGROOM_AUDITOR_PASSWORD=… psql -f roles.sql postgres
--
--   strongroom_owner      owns the database; migrations only, no worker
--   strongroom_escrow     the escrow worker
--   strongroom_recovery   the recovery worker
--   strongroom_auditor    reads what an audit needs

\set ON_ERROR_STOP on
\getenv owner_password STRONGROOM_OWNER_PASSWORD
\getenv escrow_password STRONGROOM_ESCROW_PASSWORD
\getenv recovery_password STRONGROOM_RECOVERY_PASSWORD
\getenv auditor_password STRONGROOM_AUDITOR_PASSWORD

-- A statement that fails here must not take a password into the server's log.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';

SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY['strongroom_owner', 'strongroom_escrow', 'strongroom_recovery', 'strongroom_auditor']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

ALTER ROLE strongroom_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    PASSWORD :'owner_password';
ALTER ROLE strongroom_escrow LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    PASSWORD :'escrow_password';
ALTER ROLE strongroom_recovery LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    PASSWORD :'recovery_password';
ALTER ROLE strongroom_auditor LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    PASSWORD :'auditor_password';

SELECT 'CREATE DATABASE strongroom OWNER strongroom_owner TEMPLATE template0 ENCODING ''UTF8'''
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'strongroom') \gexec

ALTER DATABASE strongroom OWNER TO strongroom_owner;
REVOKE ALL ON DATABASE strongroom FROM PUBLIC;
GRANT CONNECT ON DATABASE strongroom TO strongroom_escrow, strongroom_recovery, strongroom_auditor;

\connect strongroom
ALTER SCHEMA public OWNER TO strongroom_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO strongroom_escrow, strongroom_recovery, strongroom_auditor;
