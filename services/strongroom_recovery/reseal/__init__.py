"""Sealing keys that change: blobs are sealed again, and a key that nobody needs is retired (SPEC 7.7)."""
