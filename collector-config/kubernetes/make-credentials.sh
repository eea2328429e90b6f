#!/bin/sh
# Makes what agents and gateways need to know each other, in a folder: sh make-credentials.sh FOLDER [NAMESPACE]
# An authority, a certificate for each of the two tiers (a year), and two tokens of 256 bits. What is there stays: remove a
# file to renew it. backends-token and backends-ca.crt are for you to add: the back ends decide on them.
set -eu
umask 077
folder=${1:?"usage: make-credentials.sh FOLDER [NAMESPACE]"}
namespace=${2:-sightline}
mkdir -p "$folder"
cd "$folder"
[ -f .gitignore ] || echo '*' >.gitignore # never into version control

if [ ! -f ca.crt ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=sightline" \
    -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout ca.key -out ca.crt 2>/dev/null
fi

for tier in agent gateway; do
  [ -f "$tier.crt" ] && continue
  name=sightline-$tier
  printf '%s\n' "subjectAltName=DNS:$name,DNS:$name.$namespace,DNS:$name.$namespace.svc,DNS:$name.$namespace.svc.cluster.local" \
    "basicConstraints=critical,CA:FALSE" "extendedKeyUsage=serverAuth" >extensions
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$name" \
    -keyout "$tier.key" -out request 2>/dev/null
  openssl x509 -req -in request -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile extensions \
    -out "$tier.crt" 2>/dev/null
  rm -f request extensions
done

for token in apps-token gateway-token; do
  [ -f "$token" ] || openssl rand -hex 32 >"$token"
done
