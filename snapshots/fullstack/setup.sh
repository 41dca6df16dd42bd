#!/bin/bash
# What building and trying out a web application usually takes.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

apt-get update
apt-get install -y --no-install-recommends python3-pip python3-venv python3-dev build-essential libffi-dev libssl-dev \
  libpq-dev postgresql-client sqlite3 redis-tools ripgrep fd-find openssh-client less unzip zip
ln -sf /usr/bin/python3 /usr/local/bin/python
# Debian's name for it is taken by another program.
ln -sf /usr/bin/fdfind /usr/local/bin/fd

pip --version
psql --version
sqlite3 --version
rg --version
