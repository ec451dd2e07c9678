# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What setup.sh and the scripts beside it share. To be sourced; expects `set -eu`.

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The wrong way to call a script.
misused() {
    printf '%s: %s\n(%s --help explains)\n' "${0##*/}" "$*" "$0" >&2
    exit 64
}

# needs_value OPTION [VALUE...]: whether an option is followed by its value, as it has to be.
needs_value() {
    [ $# -ge 2 ] || misused "$1 needs a value"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo: $*"
    fi
}

# is_endpoint TEXT: whether it is an IPv4 address and a port, as the ring knows nodes.
is_endpoint() {
    local byte='(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])'
    [[ $1 =~ ^$byte\.$byte\.$byte\.$byte:([1-9][0-9]{0,4})$ ]] && [ "${1##*:}" -le 65535 ]
}

# is_number TEXT FIRST LAST
is_number() {
    [[ $1 =~ ^(0|[1-9][0-9]{0,8})$ ]] && [ "$1" -ge "$2" ] && [ "$1" -le "$3" ]
}

# json_string TEXT: TEXT as a JSON string, quotes included.
json_string() {
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

# json_value KEY FILE: the value of a string or number in a flat JSON object, or nothing.
json_value() {
    [ -e "$2" ] || return 0
    tr '\n' ' ' <"$2" | sed -nE "s/.*\"$1\"[[:space:]]*:[[:space:]]*\"?([^\",} ]*).*/\1/p"
}

# authorization: the token that is there, as curl reads it by --config: of KVCTL_TOKEN_FILE, of this user, or of this
# machine's node. (No program has it among its arguments.)
authorization() {
    local file token
    for file in "${KVCTL_TOKEN_FILE:-}" "${XDG_CONFIG_HOME:-${HOME:-/root}/.config}/kvctl/token" /etc/kvserver/tokens/admin; do
        [ -r "$file" ] || continue
        token=$(sed '/^[[:space:]]*\(#.*\)*$/d; s/[[:space:]]//g; q' "$file")
        [ -z "$token" ] || [ "$token" = none ] || printf 'header = "Authorization: Bearer %s"\n' "$token"
        return 0
    done
}

# authority: the file by which nodes are known, where they speak TLS to clients: KVCTL_CA, or this machine's node's.
authority() {
    if [ -n "${KVCTL_CA:-}" ]; then
        printf '%s' "$KVCTL_CA"
    elif [ -n "$(json_value tlsCertificateFile /etc/kvserver/kvserver.json)" ]; then
        json_value peerAuthorityFile /etc/kvserver/kvserver.json
    fi
}

# http METHOD-OPTIONS... URL: curl, never through a proxy, failing on an error status. Of an http:// URL where nodes speak
# TLS, it is https.
http() {
    local file last=${*: -1}
    file=$(authority)
    if [ -n "$file" ]; then set -- --cacert "$file" "${@:1:$#-1}" "${last/#http:/https:}"; fi
    curl --config <(authorization) --noproxy '*' --silent --show-error --fail-with-body --max-time 5 "$@"
}

# within SECONDS COMMAND...: whether the command succeeds before they are over.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

# listener_of ADDRESS:PORT: describes who listens there; fails if nobody does.
listener_of() {
    local port=${1##*:} pid line
    line=$(ss -Hltnp "sport = :$port" |
        awk -v at="$1" -v port="$port" '$4 == at || $4 == "0.0.0.0:" port || $4 == "*:" port || $4 == "[::]:" port' |
        head -n 1)
    [ -n "$line" ] || return 1
    pid=$(sed -nE 's/.*pid=([0-9]+).*/\1/p' <<<"$line")
    if [ -z "$pid" ]; then
        printf 'a process of another user'
    else
        printf 'process %s: %s' "$pid" "$({ tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null)"
    fi
}

# install_packages NAME|FILE.deb...: by apt-get, without starting any service. Debian would start memcached, haproxy,
# etcd and others on their default ports, and enable them at boot; ours are started from elsewhere. Services that were there already
# are left as they are.
install_packages() {
    command -v apt-get >/dev/null || die "no apt-get here; install these by hand, then run this again: $*"
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        die "packages are missing, and there is no sudo. As root: apt-get install $*; then run this again"
    fi
    say "Installing $* ..."
    # shellcheck disable=SC2016 # expanded by the inner shell
    as_root env DEBIAN_FRONTEND=noninteractive sh -euc '
        policy=/usr/sbin/policy-rc.d
        had() { dpkg-query -W -f "\${Status}" "$1" 2>/dev/null | grep -q "ok installed"; }
        for service in memcached haproxy etcd-server prometheus nginx redis-server webdis; do
            had $service || new="${new:-} $service"
        done
        if [ ! -e $policy ]; then
            trap "rm -f $policy" EXIT
            trap "exit 130" INT TERM HUP
            printf "#!/bin/sh\nexit 101\n" > $policy
            chmod 755 $policy
        fi
        apt-get update -q || echo "apt-get update failed; trying with the lists that are here" >&2
        apt-get install -y -q --no-install-recommends "$@"
        for service in ${new:-}; do
            if had $service && command -v systemctl >/dev/null; then
                [ $service = redis-server ] || service=${service%-server}
                systemctl --quiet disable $service.service || true
            fi
        done
    ' sh "$@" || die "apt-get could not install: $*"
}

# verify_package FILE: dies if it is not what FILE.sha256, where there is one, says.
verify_package() {
    local deb=$1 wanted
    if [ ! -e "$deb.sha256" ]; then
        say "There is no $deb.sha256 to verify the package with."
        return
    fi
    read -r wanted _ <"$deb.sha256" || die "$deb.sha256 is empty"
    [ "$(sha256sum <"$deb" | cut -d ' ' -f 1)" = "$wanted" ] || die "$deb is damaged: its checksum is not that of $deb.sha256"
    say "$deb matches $deb.sha256."
}

# render_balancer CLIENTS STATISTICS MACHINE SERVERS MAP: haproxy.cfg with these addresses to bind, these lines in
# `global`, these `server` lines, and this file as the map of slots, on standard output.
render_balancer() {
    CLIENTS=$1 STATISTICS=$2 MACHINE=$3 SERVERS=$4 RING="    http-request set-var(txn.holders) var(txn.slot),map_int($5)" awk '
        /^    # END / { skip = 0 }
        skip { next }
        /^    # BEGIN / {
            print
            text = ENVIRON[toupper($3)]
            if (text != "") print text
            skip = 1
            next
        }
        $1 == "frontend" || $1 == "listen" { section = toupper($2) }
        $1 == "bind" { print "    bind " ENVIRON[section]; next }
        { print }
    ' "$HERE/haproxy.cfg"
}

# empty_map FILE: HAProxy does not start without the file of its map, which may be empty.
empty_map() {
    [ -e "$1" ] || cp "$HERE/deploy/ring.map" "$1"
}

# check_swift: dies unless there is a toolchain that can build this package.
check_swift() {
    command -v swift >/dev/null || die "there is no Swift toolchain in PATH. Install Swift 6.2 or later" \
        "(https://www.swift.org/install/linux/), or name a built daemon: KVSERVER_BINARY=/path/to/KVServer"
    local version
    version=$(swift --version 2>/dev/null | sed -nE 's/.*Swift version ([0-9]+)\.([0-9]+).*/\1 \2/p' | head -n 1)
    # shellcheck disable=SC2086 # two words
    set -- $version
    [ $# = 2 ] || die "swift --version says nothing that can be read"
    [ "$1" -gt 6 ] || { [ "$1" = 6 ] && [ "$2" -ge 2 ]; } || die "Swift 6.2 or later is needed; this is $1.$2"
}
