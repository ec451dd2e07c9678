#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The fault tests in full. Tests/run.sh runs their short form.
set -eu
HERE=$(cd "$(dirname "$0")/../.." && pwd)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
# shellcheck source-path=SCRIPTDIR source=../../deploy/lib/common.sh
. "$HERE/deploy/lib/common.sh"

usage() {
    cat <<'END'
Usage: Tests/faults/run.sh [--minutes M | --mixed RUNS [--seconds S]] [--seed S] [--schedule FILE] [--replicas N]
                           [--logs DIRECTORY]

Runs each fault scenario against real clusters, hosts in networks of their own, and then all faults at once, with seed
after seed, until the minutes are over. The last line is `N passed, N failed`.

  --minutes M       how long to go on (30); with fewer than 15, the scenarios are shorter
  --mixed RUNS      all faults at once, so many times with a seed each, and nothing else
  --seconds S       of each of those runs (60)
  --seed S          what is drawn at random, drawn again
  --schedule FILE   the faults in FILE, as an earlier run printed them, and no others
  --replicas N      copies of each pair, 1 to 3 (3); with 1, hosts keep their memory
  --logs DIRECTORY  where logs, schedules and histories of what failed are kept
  --help

Without root, or without nftables, the hosts share the loopback, and faults of the network are skipped; without root also
those of disks.

Environment: KVSERVER_BINARY=/path/to/KVServer   what to test, instead of building it
END
}

minutes=30 arguments=()
while [ $# -gt 0 ]; do
    case $1 in
    --minutes)
        needs_value "$@"
        is_number "$2" 1 10000 || misused "--minutes takes a number from 1 to 10000: $2"
        minutes=$2
        shift 2
        ;;
    --seed)
        needs_value "$@"
        is_number "$2" 0 999999999 || misused "--seed takes a number up to 999999999: $2"
        arguments+=(--seed "$2")
        shift 2
        ;;
    --mixed | --seconds)
        needs_value "$@"
        is_number "$2" 1 10000 || misused "$1 takes a number from 1 to 10000: $2"
        arguments+=("$1" "$2")
        shift 2
        ;;
    --schedule)
        needs_value "$@"
        [ -r "$2" ] || misused "no such file: $2"
        arguments+=(--schedule "$(realpath "$2")")
        shift 2
        ;;
    --replicas)
        needs_value "$@"
        is_number "$2" 1 3 || misused "--replicas takes a number from 1 to 3: $2"
        arguments+=(--replicas "$2")
        shift 2
        ;;
    --logs)
        needs_value "$@"
        mkdir -p "$2"
        arguments+=(--logs "$(realpath "$2")")
        shift 2
        ;;
    --help | -h) usage && exit 0 ;;
    *) misused "unknown argument: $1" ;;
    esac
done

missing=()
for pair in memcached:memcached haproxy:haproxy python3:python3 ip:iproute2 nft:nftables fiu-run:fiu-utils; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"

cd "$HERE"
if [ -z "${KVSERVER_BINARY:-}" ]; then
    check_swift
    swift build -c release --product KVServer
    KVSERVER_BINARY=$(swift build -c release --show-bin-path)/KVServer
    export KVSERVER_BINARY
fi
exec python3 Tests/faults/run.py --minutes "$minutes" ${arguments[@]+"${arguments[@]}"}
