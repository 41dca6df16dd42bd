# Steps of the launcher: each says what it does and why, how long it took, and what went wrong. All of it on stderr,
# since stdout belongs to the command.

# step NAME WHY COMMAND…: runs it with its output in a log; shows a running clock on a terminal
step() {
  local name=$1 why=$2 began=$EPOCHREALTIME log clock='' status=0
  shift 2
  mkdir -p "$tools/logs"
  log=$tools/logs/${name//[^a-zA-Z0-9.]/-}.log
  if [[ -t 2 ]]; then
    tick "$name" "$why" & clock=$!
  else
    printf '… %s: %s\n' "$name" "$why" >&2
  fi
  # In a subshell of its own, so that "set -e" holds in there although the status is looked at here.
  set +e
  (set -e; "$@") </dev/null >"$log" 2>&1
  status=$?
  set -e
  [[ -z $clock ]] || { kill "$clock" 2>/dev/null; wait "$clock" 2>/dev/null || true; printf '\r\e[K' >&2; }
  if ((status != 0)); then
    printf '✗ %s (%s), the end of %s:\n' "$name" "$(since "$began")" "$log" >&2
    tail -n 25 "$log" | sed 's/^/    /' >&2
    return "$status"
  fi
  printf '✓ %-52s %9s\n' "$name" "$(since "$began")" >&2
}

tick() {
  local began=$EPOCHREALTIME
  trap 'exit 0' TERM
  while :; do
    printf '\r\e[K… %s: %s (%s)' "$1" "$2" "$(since "$began")" >&2
    # The builtin, not sleep: a killed tick then leaves no process behind.
    read -rt 0.5 <> <(:) || true
  done
}

since() {
  local microseconds=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
  printf '%d.%d s' $((microseconds / 1000000)) $((microseconds / 100000 % 10))
}

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}
