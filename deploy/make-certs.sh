#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A private certificate authority, and certificates for the store's nodes and its balancer.
set -eu

usage() {
    cat <<'END'
Usage: deploy/make-certs.sh [option...] IP...

Makes a certificate for each node, known by its IP address: IP.pem and IP.key. The first time it makes the authority that
signs them, too: ca.pem, which everybody who is to trust the nodes needs, and ca.key, which nobody else may have: keep
DIRECTORY on one machine, and bring each node ca.pem and its own two files alone.

One certificate of a node serves for its clients and among the nodes. Nothing that is there is overwritten, unless told.

  --directory DIR   where all that is (certificates)
  --days N          how long the certificates are good (397)
  --ca-days N       how long the authority is, if it is made now (3650)
  --server NAME     a certificate for a server that is no node, known by this name or IP address, such as the balancer:
                    NAME.pem, NAME.key, and both in NAME.haproxy.pem, as HAProxy takes them. Once for each
  --renew           new certificates, with new keys, in the place of those that are there; the authority stays
  --help

A node takes new certificates up when it is reloaded (SIGHUP), and no request is lost by that; docs/security.md says more.
END
}

misused() {
    printf 'make-certs.sh: %s\n(--help explains)\n' "$*" >&2
    exit 64
}

die() {
    printf 'make-certs.sh: %s\n' "$*" >&2
    exit 1
}

# is_ip TEXT: whether it can be an address; openssl reads it in the end.
is_ip() {
    local byte='(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])'
    [[ $1 =~ ^$byte\.$byte\.$byte\.$byte$ || $1 =~ ^[0-9a-fA-F:]*:[0-9a-fA-F:.]*$ ]]
}

is_name() {
    [[ $1 =~ ^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$ ]]
}

is_days() {
    [[ $1 =~ ^[1-9][0-9]{0,4}$ ]]
}

directory=certificates days=397 ca_days=3650 renew='' nodes=() servers=()
while [ $# -gt 0 ]; do
    case $1 in
    --directory | --days | --ca-days | --server) [ $# -ge 2 ] || misused "$1 needs a value" ;;&
    --directory) directory=$2 && shift 2 ;;
    --days) days=$2 && shift 2 ;;
    --ca-days) ca_days=$2 && shift 2 ;;
    --server) servers+=("$2") && shift 2 ;;
    --renew) renew=yes && shift ;;
    --help | -h) usage && exit 0 ;;
    -*) misused "unknown option: $1" ;;
    *) nodes+=("$1") && shift ;;
    esac
done
is_days "$days" || misused "--days takes 1 to 99999: $days"
is_days "$ca_days" || misused "--ca-days takes 1 to 99999: $ca_days"
[ $((${#nodes[@]} + ${#servers[@]})) != 0 ] || misused "for whom? Name the nodes' IP addresses, or --server NAME"
for node in ${nodes[@]+"${nodes[@]}"}; do
    is_ip "$node" || misused "a node is known by its IP address, without a port: $node"
done
for server in ${servers[@]+"${servers[@]}"}; do
    is_ip "$server" || is_name "$server" || misused "--server takes a host's name or IP address: $server"
done
command -v openssl >/dev/null || die "openssl is missing: apt-get install openssl"

# Keys are for whoever runs this alone; certificates are no secret.
umask 077
mkdir -p "$directory"
cd "$directory"
for name in ${nodes[@]+"${nodes[@]}"} ${servers[@]+"${servers[@]}"}; do
    [ ! -e "$name.pem" ] || [ -n "$renew" ] ||
        die "there is a certificate for $name in $directory; --renew makes a new one in its place"
done
if { [ -e ca.pem ] && [ ! -e ca.key ]; } || { [ -e ca.key ] && [ ! -e ca.pem ]; }; then
    die "there is only one of ca.pem and ca.key in $directory"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# quietly COMMAND...: what it says is for whoever has to find out why it failed.
quietly() {
    "$@" 2>"$work/said" || { cat "$work/said" >&2 && die "openssl failed: $*"; }
}

make_key() {
    quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

if [ ! -e ca.pem ]; then
    make_key "$work/ca.key"
    cat >"$work/ca.cnf" <<'END'
[req]
distinguished_name = name
x509_extensions = authority
prompt = no
[name]
CN = kvserver authority
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
END
    quietly openssl req -x509 -new -sha256 -key "$work/ca.key" -days "$ca_days" -config "$work/ca.cnf" -out "$work/ca.pem"
    chmod 644 "$work/ca.pem"
    mv "$work/ca.key" ca.key
    mv "$work/ca.pem" ca.pem
    printf 'Made the authority: %s/ca.pem (and ca.key, which stays here)\n' "$directory"
fi
openssl x509 -in ca.pem -noout -checkend $((days * 86400)) >/dev/null ||
    printf 'make-certs.sh: note: the authority ends before these certificates do\n' >&2

# make_certificate NAME USAGES: NAME.pem and NAME.key, both whole or not at all.
make_certificate() {
    local name=$1 kind=DNS
    ! is_ip "$name" || kind=IP
    make_key "$work/key"
    cat >"$work/request.cnf" <<END
[req]
distinguished_name = name
prompt = no
[name]
CN = $name
[certificate]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $2
subjectAltName = $kind:$name
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
END
    quietly openssl req -new -sha256 -key "$work/key" -config "$work/request.cnf" -out "$work/request"
    quietly openssl x509 -req -sha256 -in "$work/request" -CA ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" \
        -days "$days" -extfile "$work/request.cnf" -extensions certificate -out "$work/pem"
    chmod 644 "$work/pem"
    mv "$work/key" "$name.key"
    mv "$work/pem" "$name.pem"
    printf 'Made %s/%s.pem and its key, good for %s days\n' "$directory" "$name" "$days"
}

for node in ${nodes[@]+"${nodes[@]}"}; do
    make_certificate "$node" "serverAuth, clientAuth"
done
for server in ${servers[@]+"${servers[@]}"}; do
    make_certificate "$server" serverAuth
    cat "$server.pem" "$server.key" >"$work/both"
    mv "$work/both" "$server.haproxy.pem"
done
