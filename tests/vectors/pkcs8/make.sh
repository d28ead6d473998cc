#!/bin/sh
# Makes the key files beside this one anew with openssl 3.0.19 of Debian 12. The passphrase is `example`.
set -eu
cd "$(dirname "$0")"
make() { out=$1; shift; openssl genpkey -quiet -out "$out" "$@"; }
make rsa-3072.pem -algorithm RSA -pkeyopt rsa_keygen_bits:3072
make rsa-pss-2048.der -outform DER -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048
make ec-p384.pem -algorithm EC -pkeyopt ec_paramgen_curve:P-384
make ed25519.pem -algorithm ED25519
make ed25519.der -outform DER -algorithm ED25519
openssl pkcs8 -topk8 -in ed25519.pem -passout pass:example -out encrypted-ed25519.pem
openssl pkcs8 -topk8 -in ed25519.pem -passout pass:example -outform DER -out encrypted-ed25519.der
openssl pkcs8 -topk8 -in rsa-3072.pem -passout pass:example -scrypt -out encrypted-scrypt.pem
openssl pkcs8 -topk8 -in rsa-3072.pem -passout pass:example -v1 PBE-SHA1-3DES -out encrypted-pbe-sha1-3des.pem
openssl pkey -in rsa-3072.pem -traditional -out refused-pkcs1.pem
openssl pkey -in rsa-3072.pem -traditional -outform DER -out refused-pkcs1.der
openssl pkey -in rsa-3072.pem -traditional -aes256 -passout pass:example -out refused-traditional-encrypted.pem
openssl pkey -in ed25519.pem -pubout -out refused-public.pem
openssl genpkey -quiet -algorithm DH -pkeyopt group:ffdhe2048 -out refused-dh.pem
openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:secp112r1 -out refused-curve.pem
openssl genpkey -quiet -genparam -algorithm DSA -pkeyopt dsa_paramgen_bits:1024 | openssl genpkey -quiet -paramfile /dev/stdin -out refused-dsa.pem
