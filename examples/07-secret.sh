#!/usr/bin/env bash
# A stored secret is used by a sandbox that never holds it: inside there is a made-up value, which becomes the real one
# on the way to that host only.
set -euo pipefail
paws="$(dirname "$0")/../paws"

printf 'the-real-value' | "$paws" secrets set EXAMPLE
"$paws" run --placeholder 'api.example.com: TOKEN=secret:EXAMPLE' \
  'echo "${#TOKEN} characters"; grep -rqs the-real-value /proc/self/environ /etc /root /workspace || echo "nothing found"'
"$paws" secrets delete EXAMPLE
