#!/usr/bin/env bash
# A session that stays open: bring a file in, run commands beside the script, take a file out, and end it.
set -euo pipefail
paws="$(dirname "$0")/../paws"
folder=$(mktemp -d)
session=$("$paws" run --detach --timeout 5m 'sleep infinity')
trap '"$paws" sessions cancel "$session"; rm -r "$folder"' EXIT
until [ "$("$paws" sessions get --json "$session" | jq -r .status)" = running ]; do sleep 0.2; done

printf 'b\na\n' > "$folder/words"
"$paws" cp "$folder/words" "$session:words"
"$paws" exec "$session" -- sort -o sorted words
"$paws" cp "$session:sorted" -
