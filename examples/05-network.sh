#!/usr/bin/env bash
# A sandbox has no way out.
set -euo pipefail
paws="$(dirname "$0")/../paws"

"$paws" run 'ip -brief link; curl -sS --max-time 3 https://example.com || echo "no way out"'
