#!/bin/sh
# Builds the slot helper into the file that is named: ./build.sh OUT. Needs gcc and libc6-dev.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 OUT" >&2; exit 2; }
out=$1
here=$(cd "$(dirname "$0")" && pwd)
# Built beside its place and moved there, so that nobody ever runs half of one.
"${CC:-gcc}" -static -Os -Wall -Wextra -Werror -fstack-protector-strong -D_FORTIFY_SOURCE=2 -s -o "$out.$$" "$here"/*.c
mv "$out.$$" "$out"
