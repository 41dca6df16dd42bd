# The two small C programs: the agent inside every sandbox, and the helper that makes a sandbox's place.

bring_programs() {
  build_program guest-agent "$root/guest"
  build_program slot-helper "$root/packages/worker/slot"
}

# build_program NAME SOURCES: compiles when the sources aren't those that the last build was made of
build_program() {
  local name=$1 sources=$2 wanted
  wanted=$(cat "$sources"/build.sh "$sources"/*.[ch] | sha256sum)
  [[ -x $tools/bin/$name && $(cat "$tools/bin/$name.stamp" 2>/dev/null) == "$wanted" ]] && return
  mkdir -p "$tools/bin"
  step "$name" "compiled from ${sources#"$root"/}" "$sources/build.sh" "$tools/bin/$name"
  printf '%s\n' "$wanted" >"$tools/bin/$name.stamp"
}
