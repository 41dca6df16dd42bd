#!/usr/bin/env bash
# A key that may only read: it sees sessions and is refused a new one. Revoking it takes effect at once.
set -uo pipefail
paws="$(dirname "$0")/../paws"

made=$("$paws" keys create --json example --scope sessions:read --expires 1h)
key=$(jq -r .key <<<"$made")
PAWS_KEY=$key "$paws" sessions -n 1 --json | jq -c '.sessions | length'
PAWS_KEY=$key "$paws" run 'true'
"$paws" keys revoke "$(jq -r .id <<<"$made")"
PAWS_KEY=$key "$paws" whoami
echo "exit code $?"
