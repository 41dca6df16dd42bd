#!/bin/bash
# Python's own tools, and a compiler for what comes as source only.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

apt-get update
apt-get install -y --no-install-recommends python3-pip python3-venv python3-dev build-essential libffi-dev libssl-dev
ln -sf /usr/bin/python3 /usr/local/bin/python

python --version
pip --version
