#!/bin/bash
# Claude Code, and the programs that it likes to use.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
version=2.1.330

apt-get update
apt-get install -y --no-install-recommends ripgrep less patch unzip

npm install --global --no-audit --allow-scripts=@anthropic-ai/claude-code "@anthropic-ai/claude-code@$version"
git --version
rg --version
claude --version
