#!/usr/bin/env bash
# A sandbox has no way out but to the hosts that are named. A preset names what this machine is set to.
set -euo pipefail
paws="$(dirname "$0")/../paws"

"$paws" run 'ip -brief link; curl -sS --max-time 3 https://example.com || echo "no way out"'
"$paws" run --allow preset:npm 'curl -sSf -o /dev/null "$npm_config_registry" && echo "the registry answers"'
