#!/bin/sh
# Fuzzes the agent for so many seconds: ./run.sh SECONDS. Needs clang with its fuzzer runtime (Debian: clang and
# libclang-rt-14-dev). What makes it fail stays behind in a folder whose name is printed.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 SECONDS" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d /tmp/paws-fuzz-run-XXXXXX)
cc=${FUZZ_CC:-clang}
if ! "$cc" -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -Wall -Wextra \
  -o "$work/fuzz" "$here/fuzz.c" 2>"$work/build.log"; then
  cat "$work/build.log" >&2
  echo "can't build the fuzzer: it needs clang with its fuzzer runtime (Debian: clang libclang-rt-14-dev)" >&2
  rm -rf "$work"
  exit 3
fi
mkdir "$work/tmp" "$work/corpus"
# One honest request of each kind to start from, as fuzz.c reads them.
seed() { printf "$2" >"$work/corpus/$1"; }
exec='\025\000\000\000\000\001\000\000\000\001\000\030\000\120/\000x\000A=b\000'
seed exec "\002\001${exec}\006\001\004\000abc\007\001\000\010\001\005\001\000\000\000\000\011\001\001\017"
data='\006\001\376\000aaaaaaaaaaaaaaaaaaa'
seed flood "\002\001${exec}${data}${data}${data}${data}${data}${data}"
seed terminal "\002\001\025\001${exec#????????}\012\001\004\000\030\000\120\006\001\002\000\004\011\001\001\011"
seed put "\003\002\020\000\000\001\244\000\000\000\000\000\000\000\003/d/x\006\002\004\000abc\007\002\000"
seed get "\004\003\012\000\000\000\000\000\377\377\377/f\010\003\005\001\000\000\000\001\013\003\000"
seed link "\004\003\014\000\000\000\000\000\377\377\377/l/f\004\003\012\000\000\000\000\000\377\377\377/p"
seed connect "\005\004\002\000\120\006\004\004\000abc\007\004\000\013\004\000"
seed machine "\014\005\014abcdabcdabcd\015\005\002ab\017\005\000\016\006\004\000\000\000\001"
# A network of its own, where nothing listens, and a /tmp of its own for what the agent writes.
if unshare --user --map-root-user --net --mount sh -c 'cd "$1" && mount --bind tmp /tmp && exec ./fuzz "$2" \
  -max_len=2048 -timeout=10 -rss_limit_mb=1024 -print_funcs=0 -print_final_stats=1 -artifact_prefix=./ corpus' sh "$work" \
  "-max_total_time=$1"; then
  rm -rf "$work"
else
  echo "the fuzzer has found something: see $work" >&2
  exit 1
fi
