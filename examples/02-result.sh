#!/usr/bin/env bash
# A result for programs: JSON that the script leaves in /output/result.json comes back as "output".
set -euo pipefail
paws="$(dirname "$0")/../paws"

"$paws" run --json --env NUMBERS='3 1 2' --metadata example=02 '#!/usr/bin/env python3
import json, os
numbers = sorted(int(n) for n in os.environ["NUMBERS"].split())
json.dump({"sorted": numbers}, open("/output/result.json", "w"))
' | jq -c .output
