#!/bin/sh
# What the makers of cloud images do to a root file system: nothing in it belongs
# to one machine, or to the moment when it was built.
# Usage: finish.sh ROOT KNODE EPOCH
set -eu
root=$1 knode=$2 epoch=$3

install -D -m 0755 "$knode" "$root/opt/knode/bin/knode"
chroot "$root" systemctl --quiet enable systemd-networkd.service systemd-resolved.service

# Nothing in it makes SSH keys. The package of a server makes them when it is installed.
echo 'ssh_genkeytypes: []' >"$root/etc/cloud/cloud.cfg.d/10_no_ssh.cfg"

# Identity: every machine makes its own, at its first boot.
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed"
echo localhost >"$root/etc/hostname"

# The build's own: an index that may be out of date was for the build only.
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap"

# Leftovers of packages' installation. Device nodes are the kernel's own to make.
rm -f "$root"/initrd.img.old "$root"/vmlinuz.old "$root"/etc/resolv.conf.systemd-resolved.bak
rm -f "$root"/etc/*- "$root"/var/lib/dpkg/*-old "$root"/var/cache/ldconfig/aux-cache
find "$root/dev" "$root/run" "$root/tmp" "$root/var/tmp" -mindepth 1 -delete
find "$root/var/log" "$root/var/cache/apt" "$root/var/cache/debconf" "$root/var/lib/apt/lists" \
    -type f -delete
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

# Caches are as the packages made them: no boot needs to make them again.
touch "$root/etc/.updated" "$root/var/.updated"

# Last: nothing is younger than the packages' index.
find "$root" -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +
