"""The only importers of `cryptography`: signing, sealing, key files, the transparency log."""
