#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes this instance a node of the store, or its balancer.
set -euo pipefail

usage() {
    cat <<'END'
Usage: kvserver-first-boot [SETTINGS]

What cloud-init runs on an instance that deploy/ec2 makes: fetches the package and setup.sh from S3, verifies both, and runs
`setup.sh node` or `setup.sh balancer`. Nodes share the tokens that the first of them to ask for them has made and keeps in SSM, as
SecureString parameters; they are never printed, nor arguments of a program. Node 1 gives all nodes their first ring. It may be
repeated.

SETTINGS is /etc/kvserver-first-boot.env, in which there is no secret.
END
}

die() {
    printf 'kvserver-first-boot: %s\n' "$*" >&2
    exit 1
}

# within TRIES COMMAND...: every 2 s until it succeeds, or dies.
within() {
    local tries=$1
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || die "in vain: $*"
        sleep 2
    done
}

# fetch KEY SHA256: into the present directory.
fetch() {
    within 60 aws s3 cp --only-show-errors "s3://$BUCKET/$1" "$1"
    printf '%s  %s\n' "$2" "$1" >"$1.sha256"
    sha256sum --check --strict --quiet "$1.sha256" || die "$1 is not what was put into $BUCKET"
}

# A door's token, into the file of its name: that of SSM, or one that is made and put there. Of several at once that make one, SSM takes
# the first, and all read that.
fetch_token() {
    if ! aws ssm get-parameter --name "$TOKENS/$1" --with-decryption --query Parameter.Value --output text >"$1.new" 2>"$1.log"; then
        grep -q ParameterNotFound "$1.log" || return 1
        printf '{"Name": "%s", "Type": "SecureString", "Value": "%s"}' "$TOKENS/$1" "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" >"$1.json"
        aws ssm put-parameter --cli-input-json "file://$1.json" >/dev/null 2>&1 || true
        rm "$1.json"
        return 1
    fi
    grep -qxE '[0-9A-Za-z]{32,256}' "$1.new" && mv "$1.new" "$1"
}

answers() {
    curl --noproxy '*' --silent --fail --output /dev/null --max-time 5 "http://$1/health/live"
}

setup_node() {
    local directory door
    # In memory, for root alone, for as long as this runs.
    directory=$(mktemp -d /run/kvserver-tokens.XXXXXX)
    # shellcheck disable=SC2064 # what it is now
    trap "rm -rf '$directory'" EXIT
    (umask 077 && cd "$directory" && for door in admin peer; do within 150 fetch_token "$door"; done)
    ./setup.sh node --address "$ADDRESS" --deb "$PACKAGE" --tokens "$directory" ${MEMORY:+--memory "$MEMORY"}
    [ "$ADDRESS" != "${nodes[0]}" ] || give_ring
}

# The first ring, in equal shares; none in the place of one that is there.
give_ring() {
    local ring=() index
    if ! curl --noproxy '*' --silent --fail --max-time 5 "http://$ADDRESS/hash_ring" | grep -q '"epoch":0'; then return; fi
    for index in "${!nodes[@]}"; do
        within 300 answers "${nodes[index]}"
        ring+=("${nodes[index]}=$(((index + 1) * 10000 / ${#nodes[@]} - 1))")
    done
    within 30 /usr/lib/kvserver/reconfigure.sh "${ring[@]}"
}

setup_balancer() {
    local node options=()
    for node in "${nodes[@]}"; do options+=(--node "$node"); done
    ./setup.sh balancer --deb "$PACKAGE" "${options[@]}"
}

case ${1:-} in --help | -h) usage && exit 0 ;; esac
# shellcheck source=/dev/null
. "${1:-/etc/kvserver-first-boot.env}"
export AWS_REGION AWS_DEFAULT_REGION=$AWS_REGION
read -ra nodes <<<"$ALL_NODES"
umask 022
mkdir -p /opt/kvserver
cd /opt/kvserver
fetch "$PACKAGE" "$PACKAGE_SHA256"
fetch "$SETUP" "$SETUP_SHA256"
tar -xzf "$SETUP" --no-same-owner
case $ROLE in
node) setup_node ;;
balancer) setup_balancer ;;
*) die "no such role: $ROLE" ;;
esac
