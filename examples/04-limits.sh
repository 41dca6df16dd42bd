#!/usr/bin/env bash
# What a sandbox may use is limited: this script fills its disk, and gets an error inside; then its time runs out.
set -uo pipefail
paws="$(dirname "$0")/../paws"

"$paws" run --disk 256 --timeout 3s 'head -c 1G /dev/zero > big || echo "the disk is full"; sleep 60'
echo "exit code $?"
