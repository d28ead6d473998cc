"""The kernel of Strongroom: statements, trust, sealing, log, broker and database access. It starts no process."""
