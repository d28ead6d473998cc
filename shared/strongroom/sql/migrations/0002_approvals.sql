-- Requests that wait for approvals, and the statements that decide them (SPEC 5.2, 5.6 to 5.8).
--
-- What became of a request is read from the recovery log. The tables keep what the log names by digest: the
-- statements themselves, found by their place in the log.

-- Approvals, denials, revocations and partly signed invitations join the rosters and enrolments. An invitation
-- that gains a signature keeps its digest and gets another leaf.
ALTER TABLE trust_statements DROP CONSTRAINT trust_statements_pkey;
ALTER TABLE trust_statements DROP CONSTRAINT trust_statements_leaf_index_key;
ALTER TABLE trust_statements ADD PRIMARY KEY (leaf_index);
CREATE INDEX trust_statements_by_digest ON trust_statements (digest);

-- A release that was lost is decided again, under another leaf.
ALTER TABLE releases DROP CONSTRAINT releases_pkey;
ALTER TABLE releases DROP CONSTRAINT releases_leaf_index_key;
ALTER TABLE releases ADD PRIMARY KEY (leaf_index);

-- The log says all that these said.
DROP TABLE released_records;
DROP TABLE refusals;
