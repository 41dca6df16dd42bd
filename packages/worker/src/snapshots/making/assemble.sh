#!/bin/sh
# Makes rootfs.squashfs in the working directory: assemble.sh SUITE PACKAGES. Run as root of the sandboxes' ids, in
# namespaces of its own. Finds there: template/, apt.conf, build.sources and shown.sources. Lines "paws: …" are steps.
set -eu
suite=$1
packages=$2

# Everything happens in /tmp: no path of the host gets into the image, and no folder above need be passable.
# Taken as it stands: mount would make the path whole, and the folders above it may be closed.
mount --no-canonicalize --bind . /tmp
cd /tmp
touch started

# The day of accounts and the like; a fixed one, so that two builds of the same packages are equal.
export SOURCE_DATE_EPOCH=1704067200
# What a crash leaves of it is thrown away, here as in the sandboxes: dpkg need not wait for the disk.
mmdebstrap --verbose --mode=root --variant=minbase --format=directory --include="$packages" --aptopt=/tmp/apt.conf \
  --dpkgopt=force-unsafe-io \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  "$suite" /tmp/rootfs /tmp/build.sources

echo 'paws: setup'
cat > /tmp/enter.sh <<'EOF'
mount --rbind /dev rootfs/dev
mount -t proc proc rootfs/proc 2> /dev/null || mount --rbind /proc rootfs/proc
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 chroot rootfs /bin/bash -s < template/setup.sh
EOF
unshare --mount --net sh -eu /tmp/enter.sh

echo 'paws: clean'
cd rootfs
# What mmdebstrap took over from the host, and settings of the build that may hold a proxy's password.
rm -rf dev/* run/* tmp/* etc/hostname etc/apt/apt.conf.d/99mmdebstrap etc/apt/sources.list etc/apt/sources.list.d/*
: > etc/resolv.conf
: > etc/machine-id
rm -f var/lib/dbus/machine-id
cp /tmp/shown.sources etc/apt/sources.list.d/debian.sources
chmod 644 etc/apt/sources.list.d/debian.sources etc/resolv.conf etc/machine-id
# What differs from build to build, or is no use.
rm -rf var/lib/apt/lists/* var/cache/apt/*.bin var/cache/apt/archives/*.deb var/cache/ldconfig/aux-cache
rm -f etc/passwd- etc/group- etc/shadow- etc/gshadow- var/cache/debconf/*-old var/lib/dpkg/*-old etc/.pwd.lock
find var/log -type f -delete
cd ..
# Times before the build come from the packages and stay, since Python's caches compare them; the last stands for all
# that the build wrote.
epoch=$(find rootfs ! -newer started -printf '%T@\n' | sort -n | tail -n 1 | cut -d . -f 1)
find rootfs -newer started -exec touch --no-dereference --date="@$epoch" {} +

dpkg-query --admindir=/tmp/rootfs/var/lib/dpkg --show --showformat='${Package}\t${Version}\n' > packages.txt
dpkg --print-architecture > architecture.txt

echo 'paws: image'
SOURCE_DATE_EPOCH=$epoch mksquashfs rootfs rootfs.squashfs -comp zstd -Xcompression-level 9 -noappend -no-progress -quiet
