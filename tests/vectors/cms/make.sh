#!/bin/sh
# Makes every file beside this one anew, with programs of Debian 12: openssl 3.0.19; cmsutil and certutil of
# libnss3-tools 3.87.1; volume-key 0.3.12; cryptsetup-bin 2.6.1. Nothing of it is made by Strongroom.
set -eu
cd "$(dirname "$0")"

newkey() { openssl req -x509 -newkey "$1" $2 -nodes -days 36500 -subj "/O=Example/CN=$3" -keyout "$3.key.pem" -out "$3.crt.pem" 2>/dev/null; }
newkey rsa:2048 "" authority
newkey rsa:2048 "" other
newkey ec "-pkeyopt ec_paramgen_curve:P-256" elliptic
printf 'a key that must come back: \000\001\377\n' > content.bin

encrypt() { out=$1; shift; openssl cms -encrypt -binary -in content.bin -out "$out" -recip authority.crt.pem "$@"; }
encrypt default.smime
encrypt default.pem -outform PEM
encrypt default.der -outform DER
encrypt aes-128.der -outform DER -aes-128-cbc
encrypt aes-192.der -outform DER -aes-192-cbc
encrypt aes-256.der -outform DER -aes-256-cbc
encrypt aes-256-streamed.ber -outform DER -aes-256-cbc -stream
encrypt key-identifier.der -outform DER -aes-256-cbc -keyid
encrypt two-recipients.der -outform DER -aes-256-cbc other.crt.pem
encrypt oaep-sha1.der -outform DER -aes-256-cbc -keyopt rsa_padding_mode:oaep
for md in sha256 sha384 sha512; do
    encrypt "oaep-$md.der" -outform DER -aes-256-cbc -keyopt rsa_padding_mode:oaep -keyopt "rsa_oaep_md:$md"
done
encrypt oaep-sha256-mgf1-sha1.der -outform DER -aes-256-cbc -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha256 -keyopt rsa_mgf1_md:sha1
openssl cms -encrypt -binary -in /dev/null -out empty.der -recip authority.crt.pem -outform DER -aes-256-cbc

# What is refused.
encrypt refused-oaep-label.der -outform DER -aes-256-cbc -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_label:6162
encrypt refused-oaep-sha224.der -outform DER -aes-256-cbc -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha224
encrypt refused-rc2.der -outform DER -rc2-cbc -provider legacy -provider default
encrypt refused-des.der -outform DER -des-cbc -provider legacy -provider default
encrypt refused-auth-enveloped.der -outform DER -aes-256-gcm
encrypt refused-password.der -outform DER -aes-256-cbc -pwri_password example
encrypt refused-key-encryption-key.der -outform DER -aes-256-cbc -secretkey 000102030405060708090a0b0c0d0e0f -secretkeyid 01
encrypt refused-key-agreement.der -outform DER -aes-256-cbc elliptic.crt.pem
openssl cms -sign -binary -nodetach -in content.bin -signer authority.crt.pem -inkey authority.key.pem -outform DER -out refused-signed.der

# NSS writes BER of indefinite length, as macOS does, whose encoder is of the same origin.
work=$(mktemp -d)
certutil -N -d "$work" --empty-password
certutil -A -d "$work" -n authority -t CT,CT,CT -i authority.crt.pem
cmsutil -E -d "$work" -r authority -i content.bin -o nss.ber

# The passphrase of the volume is `example`. Host and file names go into a packet, so they are made up here, too.
truncate -s 20M "$work/volume"
printf example | cryptsetup luksFormat --batch-mode --type luks1 --pbkdf-force-iterations 1000 --key-file - "$work/volume"
cp authority.crt.pem "$work"
as_host() { unshare --uts sh -c 'hostname host.example && exec "$@"' sh "$@"; }
save() { out=$1; shift; printf 'example\0' | (cd "$work" && as_host volume_key --batch --save volume -o packet "$@"); mv "$work/packet" "$out"; }
save volume-key-default.packet -c authority.crt.pem
save volume-key-asymmetric.packet -c authority.crt.pem --output-format asymmetric
save volume-key-cleartext.packet --unencrypted-yes-really --output-format cleartext
rm -r "$work"
