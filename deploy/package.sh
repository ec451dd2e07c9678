#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the Debian package of the daemon, for machines without a Swift toolchain.
set -eu
HERE=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$HERE/deploy/lib/common.sh"

usage() {
    cat <<'END'
Usage: deploy/package.sh [--output DIR] [--version VERSION]

Builds the daemon for release with Swift's runtime linked in (in .build-package/) and writes
kvserver_VERSION_ARCHITECTURE.deb and its .sha256 to DIR (the checkout).

The package holds the daemon, kvctl, their systemd units, the user it runs as, and deploy/reconfigure.sh and
deploy/restart-node.sh. It installs on a bare machine of the Debian or Ubuntu release that it was built on, or a later one:

    sudo ./setup.sh node --deb kvserver_VERSION_ARCHITECTURE.deb --address 10.0.0.5:5000

  --output DIR         where the package goes
  --version VERSION    instead of the one that git describes (needs a digit in front)

Environment: KVSERVER_BINARY=/path/to/KVServer packs that instead of building, and KVCTL_BINARY (what is beside it).
END
}

output=$HERE version=''
while [ $# -gt 0 ]; do
    case $1 in
    --output) needs_value "$@" && output=$2 && shift 2 ;;
    --version) needs_value "$@" && version=$2 && shift 2 ;;
    --help | -h) usage && exit 0 ;;
    *) misused "unknown argument: $1" ;;
    esac
done
if [ -z "$version" ]; then
    version=$(git -C "$HERE" describe --tags --dirty=+dirty 2>/dev/null | sed -E 's/^v//; s/-([0-9]+)-g/+\1.g/' || true)
    [ -n "$version" ] || version=0.1.0$(git -C "$HERE" log -1 --format=+%cd.g%h --date=format:%Y%m%d 2>/dev/null || true)
fi
[[ $version =~ ^[0-9][0-9A-Za-z.+~]*$ ]] || die "no version for a Debian package: '$version'"
command -v dpkg-deb >/dev/null || die "dpkg-deb is missing: packages are made on Debian or Ubuntu"

binary=${KVSERVER_BINARY:-}
if [ -z "$binary" ]; then
    check_swift
    say "Building the daemon with Swift's runtime linked in; the first time takes some minutes ..."
    build=(swift build --package-path "$HERE" --scratch-path "$HERE/.build-package" -c release
        --static-swift-stdlib --product)
    "${build[@]}" KVServer
    "${build[@]}" kvctl
    binary=$("${build[@]}" KVServer --show-bin-path)/KVServer
fi
control=${KVCTL_BINARY:-${binary%/*}/kvctl}
for program in "$binary" "$control"; do [ -x "$program" ] || die "there is no program at $program"; done

# needed_packages FILE...: the packages that own the libraries which these link, as a Depends: field.
needed_packages() {
    # (This runs in a subshell, and a library without a package has to end it.)
    set -o pipefail
    local library package
    # A program that is not linked to anything makes ldd fail.
    { ldd "$@" 2>/dev/null || true; } | sed -nE 's/.* => (\/[^ ]+) .*/\1/p' | while read -r library; do
        package=$(dpkg -S "$(realpath "$library")" 2>/dev/null || dpkg -S "*/${library##*/}" 2>/dev/null) ||
            die "no package owns $library, which the daemon or kvctl links"
        printf '%s\n' "${package%%:*}"
    done | sort -u | while read -r package; do
        # As new as what it was linked with; the version of the library, not of its packaging.
        printf '%s (>= %s), ' "$package" "$(dpkg-query -W -f '${Version}' "$package" | sed -E 's/^[0-9]+://; s/[-+].*//')"
    done
}

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"
install -D -m 755 "$binary" "$stage/usr/bin/KVServer"
install -D -m 755 "$control" "$stage/usr/bin/kvctl"
# (The symbol table stays: it names the functions in a crash's backtrace.)
for program in "$stage"/usr/bin/*; do
    if command -v strip >/dev/null && head -c 4 "$program" | grep -q ELF; then strip --strip-debug "$program"; fi
done
install -D -m 755 -t "$stage/usr/lib/kvserver" "$HERE"/deploy/{run-memcached,reconfigure,restart-node}.sh
install -D -m 644 -t "$stage/usr/lib/kvserver/lib" "$HERE"/deploy/lib/{common,restart}.sh
install -D -m 644 -t "$stage/lib/systemd/system" "$HERE"/deploy/units/*.service
install -D -m 644 "$HERE/deploy/units/kvserver.sysusers" "$stage/usr/lib/sysusers.d/kvserver.conf"
install -D -m 644 "$HERE/deploy/units/kvserver.tmpfiles" "$stage/usr/lib/tmpfiles.d/kvserver.conf"
install -D -m 644 "$HERE/LICENSE" "$stage/usr/share/doc/kvserver/copyright"
install -D -m 755 -t "$stage/DEBIAN" "$HERE"/deploy/debian/{postinst,prerm,postrm}

architecture=$(dpkg --print-architecture)
needed=$(needed_packages "$binary" "$control")
cat >"$stage/DEBIAN/control" <<END
Package: kvserver
Version: $version
Architecture: $architecture
Maintainer: The kvserver developers <root@localhost>
Section: database
Priority: optional
Depends: ${needed}memcached (>= 1.6), bash, systemd
Installed-Size: $(du -sk --exclude=DEBIAN "$stage" | cut -f 1)
Description: multi-node key-value store over memcached
 One node of a key-value store with plain HTTP in front and a local memcached
 underneath. Keys are spread over the nodes by consistent hashing; nodes join
 and leave while the store serves.
END

mkdir -p "$output"
package=$output/kvserver_${version}_$architecture.deb
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git -C "$HERE" log -1 --format=%ct 2>/dev/null || date +%s)
fi
export SOURCE_DATE_EPOCH
dpkg-deb --root-owner-group --build "$stage" "$package" >/dev/null
(cd "$output" && sha256sum "${package##*/}" >"${package##*/}.sha256")
say "$package"
