#!/bin/sh
# Makes the key files beside this one anew with OpenSSH 9.2 of Debian 12. The passphrase is `example`.
set -eu
cd "$(dirname "$0")"
rm -f -- *.key
make() { out=$1; shift; ssh-keygen -q -C example -f "$out.key" "$@"; rm "$out.key.pub"; }
make ed25519 -t ed25519 -N ""
make rsa-3072 -t rsa -b 3072 -N ""
make ecdsa-256 -t ecdsa -b 256 -N ""
make ecdsa-384 -t ecdsa -b 384 -N ""
make ecdsa-521 -t ecdsa -b 521 -N ""
make refused-dsa -t dsa -N ""
make ed25519-aes256-ctr -t ed25519 -N example -a 1
make ed25519-aes256-gcm -t ed25519 -N example -a 1 -Z aes256-gcm@openssh.com
make ed25519-chacha20 -t ed25519 -N example -a 1 -Z chacha20-poly1305@openssh.com
make rsa-3072-aes256-cbc -t rsa -b 3072 -N example -a 1 -Z aes256-cbc
