#!/bin/bash
# Runs as root inside the new image, once its packages are installed. Nothing of the host is visible, and no network.
set -euo pipefail

# Where scripts run, and where they leave what they made.
mkdir -p /workspace /output

# Translations of package descriptions would be most of what `apt-get update` fetches; nobody reads them here.
cat > /etc/apt/apt.conf.d/90paws <<'EOF'
Acquire::Languages "none";
APT::Install-Recommends "false";
EOF

# For whatever ignores the environment that sessions start with.
echo 'LANG=C.UTF-8' > /etc/default/locale
