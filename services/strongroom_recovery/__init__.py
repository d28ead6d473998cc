"""The recovery worker: holds the sealing private keys, decides enrolments, and gives keys back on the record."""
