#!/bin/sh
# Brings knode onto this machine: the first of /etc/knode/knode.list whose bytes
# have the SHA-256 written there. Lines are "ARCH SHA256 URL". Nothing is made
# executable before its checksum holds, and a machine whose image already has
# these very bytes needs no network.
set -u
umask 022
list=/etc/knode/knode.list
knode=/opt/knode/bin/knode
connect=10 # seconds to reach a mirror
stall=30   # seconds without a byte
round=600  # seconds for one mirror

say() {
    echo "knode-bootstrap: $*" >&2
    { echo "knode-bootstrap: $*" >/dev/console; } 2>/dev/null || :
}

# holds FILE SHA256
holds() {
    [ -f "$1" ] && [ "$(sha256sum <"$1" | cut -d ' ' -f 1)" = "$2" ]
}

# download URL FILE, with whichever client the machine has
download() {
    if command -v curl >/dev/null 2>&1; then
        curl -fsSL --connect-timeout "$connect" --speed-limit 1 --speed-time "$stall" \
            --max-time "$round" -o "$2" "$1"
    elif command -v wget >/dev/null 2>&1; then
        timeout "$round" wget -q -T "$stall" -O "$2" "$1"
    elif command -v python3 >/dev/null 2>&1; then
        timeout "$round" python3 -c '
import shutil, sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[3])) as reply:
    with open(sys.argv[2], "wb") as file:
        shutil.copyfileobj(reply, file)
' "$1" "$2" "$stall"
    else
        say "E-BOOTSTRAP-CLIENT: none of curl, wget and python3 is on this machine"
        return 1
    fi
}

case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) arch=$(uname -m) ;;
esac

grep -q "^$arch " "$list" || {
    say "E-BOOTSTRAP-ARCH: $list names no knode for $arch; regenerate the user-data for this machine"
    sleep 300
    exit 1
}

mkdir -p "${knode%/*}"
rm -f "$knode".part.*
pause=2
while :; do
    while read -r for_arch sum url; do
        [ "$for_arch" = "$arch" ] || continue
        holds "$knode" "$sum" && exit 0
        for found in /usr/bin/knode /usr/local/bin/knode; do
            if holds "$found" "$sum"; then
                ln -sf "$found" "$knode" && exit 0
            fi
        done
        part=$knode.part.$$
        if ! reason=$(download "$url" "$part" 2>&1); then
            say "E-BOOTSTRAP-DOWNLOAD: $url: $reason"
        elif ! holds "$part" "$sum"; then
            say "E-BOOTSTRAP-HASH: $url has sha256 $(sha256sum <"$part" | cut -d ' ' -f 1), expected $sum; not used"
        else
            chmod 0755 "$part" && sync "$part" && mv -f "$part" "$knode" && exit 0
            say "E-BOOTSTRAP-INSTALL: cannot install $knode"
        fi
        rm -f "$part"
    done <"$list"
    say "no mirror had knode; trying again in $pause s"
    sleep "$pause"
    pause=$((pause * 2))
    [ "$pause" -le 60 ] || pause=60
done
