#!/bin/sh
# What compose.yaml runs as `prepare` before everything else: gives each volume to the user of the program that writes
# to it, and makes the password of Grafana's administrator, once. A password that is there stays.
set -eu
umask 077
volumes=${PREPARE_VOLUMES:-/volumes}

chown 10001:10001 "$volumes/collector-queues" "$volumes/jaeger-data" "$volumes/loki-data"
chown 65534:65534 "$volumes/prometheus-data" "$volumes/alertmanager-data"
chown 472:0 "$volumes/grafana-data"

password=$volumes/grafana-secrets/admin-password
if [ ! -s "$password" ]; then
  head -c 24 /dev/urandom | base64 >"$password.new" # 192 bits, 32 characters
  chown 472:0 "$password.new"
  mv "$password.new" "$password"
fi
chmod 0755 "$volumes/grafana-secrets" # Grafana's user reads its one file; the file itself is mode 0600
