# Debian packages. Each is named with a file or command that tells whether it is there, so that asking costs nothing
# and a program that came another way counts too.

runtime_packages=(
  'bubblewrap=bwrap'                              # sandboxes as processes
  'uidmap=newuidmap'                              # ids of a sandbox for an ordinary user
  'util-linux=setpriv'                            # children that end with their parent
  'e2fsprogs=mkfs.ext4'                           # disks of sandboxes
  'mmdebstrap=mmdebstrap' 'squashfs-tools=mksquashfs' # build snapshots
  'gcc=gcc' 'libc6-dev=/usr/include/stdio.h'      # compiles the guest agent
  'ca-certificates=/etc/ssl/certs/ca-certificates.crt'
  'curl=curl'                                     # the first request that a newcomer types
)
test_packages=(
  'clang=clang' 'libclang-rt-14-dev=/usr/lib/llvm-14/lib/clang'   # fuzzes the guest agent
  'git=git' 'iproute2=ip' 'procps=ps'
  'openssl=openssl'                               # a certificate for a tunnel over TLS
  'jq=jq'                                         # the examples read answers with it
)

# need_packages WHY PACKAGE=PROOF…
need_packages() {
  local why=$1 entry proof missing=()
  shift
  for entry in "$@"; do
    proof=${entry#*=}
    if [[ $proof == /* ]]; then [[ -e $proof ]]; else command -v "$proof" >/dev/null; fi || missing+=("${entry%%=*}")
  done
  ((${#missing[@]} == 0)) || install_packages "$why" "${missing[@]}"
}

install_packages() {
  local why=$1 as_root=()
  shift
  command -v apt-get >/dev/null || fail "paws needs $why: $*." 'This machine has no apt-get: install what these Debian packages hold, and try again.'
  if ((EUID != 0)); then
    # Asked for before the step, whose output goes to a log: the password prompt must be seen.
    if ! command -v sudo >/dev/null || ! { sudo -n true 2>/dev/null || { [[ -t 0 ]] && sudo -v; }; }; then
      fail "paws needs $why, and installing them takes root. Run this as root, then try again:" \
        "  apt-get update && apt-get install --no-install-recommends $*"
    fi
    as_root=(sudo -n)
  fi
  step "Debian packages" "$why: $*" apt_install "${as_root[@]}" -- "$@"
}

# The lists of a fresh machine may be missing or old: only then are they fetched.
apt_install() {
  local prefix=()
  while [[ $1 != -- ]]; do prefix+=("$1"); shift; done
  shift
  local apt=("${prefix[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
  local install=("${apt[@]}" install -y --no-install-recommends "$@")
  "${install[@]}" || { "${apt[@]}" update && "${install[@]}"; }
}
