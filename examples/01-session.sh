#!/usr/bin/env bash
# Runs a script in a sandbox over plain HTTP, and waits for its output.
set -euo pipefail
api() { curl --fail-with-body -sS -H "Authorization: Bearer $PAWS_KEY" -H 'Content-Type: application/json' "$@"; }

session=$(api -X POST "$PAWS_URL/v1/sessions" -d '{
  "snapshot": "minimal",
  "workload": { "type": "script", "script": "echo hello from inside the sandbox" },
  "timeoutMs": 60000
}' | jq -r .sessionId)

# The stream of events ends when the session does.
api -N "$PAWS_URL/v1/sessions/$session/events" >/dev/null
api "$PAWS_URL/v1/sessions/$session" | jq '{status, exitCode, stdout}'
