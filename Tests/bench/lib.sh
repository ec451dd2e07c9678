# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Processes and figures of the benchmarks. To be sourced by run.sh and compare.sh, which set BENCH and ROOT.

KVSERVER_BINARY=${KVSERVER_BINARY:-$ROOT/.build/release/KVServer}
export KVSERVER_BINARY
NETWORK=127.0.77
# Where Debian keeps nginx and haproxy, for users whose PATH lacks it.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf '%s\n' "$*"; }

die() {
    printf 'bench: %s\n' "$*" >&2
    exit 1
}

# missing_of TOOL=PACKAGE...: the packages of all tools that are missing.
missing_of() {
    local pair
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || printf '%s ' "${pair#*=}"
    done
}

# require TOOL=PACKAGE...: dies naming what is missing.
require() {
    local missing
    missing=$(missing_of "$@")
    [ -z "$missing" ] || die "missing: apt-get install $missing"
    [ -x "$KVSERVER_BINARY" ] || die "no daemon at $KVSERVER_BINARY: swift build -c release --product KVServer"
}

# Makes DIRECTORY, which is gone with all that was started when the script ends.
begin() {
    DIRECTORY=$(mktemp -d "${TMPDIR:-/tmp}/kvserver-bench-XXXXXX")
    export KVSERVER_LOCAL=$DIRECTORY/cluster
    trap finish EXIT
    trap 'exit 130' INT TERM
}

finish() {
    end_all
    [ ! -e "$KVSERVER_LOCAL/settings" ] || stop_cluster || true
    rm -rf "$DIRECTORY"
}

# --- processes ---

pids=()

# Processors for what is started, and for what loads it; empty: any. (compare.sh sets them.)
server_cpus='' load_cpus=''

# pinned CPUS COMMAND...
pinned() {
    local cpus=$1
    shift
    if [ -n "$cpus" ]; then taskset -c "$cpus" "$@"; else "$@"; fi
}

# start LOG COMMAND...: in the background, ended with this script.
start() {
    local log=$1 pin=()
    shift
    [ -z "$server_cpus" ] || pin=(taskset -c "$server_cpus")
    "${pin[@]}" "$@" </dev/null >>"$log" 2>&1 &
    pids+=("$!")
}

# In the opposite order of their start; a daemon gets time to end its workers.
end_all() {
    local index pid
    for ((index = ${#pids[@]} - 1; index >= 0; index--)); do
        pid=${pids[index]}
        kill "$pid" 2>/dev/null || continue
        for _ in {1..50}; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
    done
    pids=()
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

# --- servers ---

# start_node NAME ADDRESS WORKERS MEMORY MEMCACHED_THREADS [NODES]: in $DIRECTORY/NAME, with a memcached of its own;
# their pids are the last of pids, memcached's first. NODES are the ring's, as JSON; without, the node is alone in it.
start_node() {
    local directory=$DIRECTORY/$1 address=$2 workers=$3 memory=$4 threads=$5 nodes=${6:-"{\"ip\":\"$2\",\"key\":3000}"}
    local socket=$directory/memcached.sock
    # (An earlier one of that name has left its pairs on disk, which this one would take for its own that were lost.)
    rm -rf "$directory"
    mkdir -p "$directory/state"
    start "$directory/memcached.log" "$ROOT/deploy/run-memcached.sh" --socket "$socket" --memory "$memory" \
        --threads "$threads" --connections 4096
    within 5 test -S "$socket" || die "memcached did not start: $(tail -n 3 "$directory/memcached.log")"
    cat >"$directory/node.json" <<END
{"node": "$address", "workers": $workers, "memcached": "$socket", "stateDirectory": "$directory/state"}
END
    start "$directory/node.log" "$KVSERVER_BINARY" --config "$directory/node.json"
    within 10 curl -fsS "http://$address/health/live" ||
        die "the node did not start: $(tail -n 3 "$directory/node.log")"
    curl -fsS "http://$address/hash_ring" -o /dev/null --data-urlencode "data={\"nodes\":[$nodes],\"replicas\":1}" ||
        die "the node takes no ring"
    within 10 curl -fsS "http://$address/health/ready" || die "the node is not ready"
}

# start_nginx ADDRESS SOCKET FIXED: the memcached module before that memcached at ADDRESS, and 100 bytes for any request
# at FIXED.
start_nginx() {
    sed -e "s|@DIRECTORY@|$DIRECTORY|" -e "s|@ADDRESS@|$1|" -e "s|@SOCKET@|$2|" -e "s|@FIXED@|$3|" \
        -e "s|@VALUE@|$(printf 'v%.0s' {1..100})|" -e "s|@USER@|$(id -un)|" -e "s|@GROUP@|$(id -gn)|" \
        "$BENCH/nginx.conf.template" >"$DIRECTORY/nginx.conf"
    start "$DIRECTORY/nginx.out" nginx -c "$DIRECTORY/nginx.conf"
    within 5 curl -fsS "http://$3/" ||
        die "nginx does not serve: $(tail -n 3 "$DIRECTORY/nginx.log" "$DIRECTORY/nginx.out")"
}

# fill_plain SOCKET PREFIX COUNT BYTES: nginx sees plain keys: the same names, values of the same bytes, without this
# store's prefix and envelope.
fill_plain() {
    python3 - "$@" <<'END'
import socket, sys
path, prefix, count, size = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(path)
    for number in range(count):
        value = b"%s%07d" % (b"v" * (size - 7), number)
        connection.sendall(b"set %s%d 0 0 %d noreply\r\n%s\r\n" % (prefix, number, size, value))
    connection.sendall(b"mn\r\n")
    assert connection.recv(16) == b"MN\r\n"
END
}

# start_cluster NODES MEMORY [OPTION...]: HAProxy at .10 and nodes from .11 on, by setup.sh.
start_cluster() {
    local nodes=$1 memory=$2
    shift 2
    pinned "$server_cpus" "$ROOT/setup.sh" local --nodes "$nodes" --workers 1 --memory "$memory" --network "$NETWORK" \
        "$@" >"$DIRECTORY/setup.log" 2>&1 || die "setup.sh local failed: $(tail -n 5 "$DIRECTORY/setup.log")"
}

stop_cluster() { "$ROOT/setup.sh" local down >/dev/null; }

# start_ceiling ADDRESS FIXED: HAProxy with nothing behind it but nginx's fixed answer: no store can do more through it.
start_ceiling() {
    cat >"$DIRECTORY/ceiling.cfg" <<END
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 1s
frontend balancer
    bind $1
    default_backend fixed
backend fixed
    server fixed $2
END
    start "$DIRECTORY/ceiling.log" haproxy -db -f "$DIRECTORY/ceiling.cfg"
    within 5 curl -fsS "http://$1/" || die "HAProxy does not serve: $(tail -n 3 "$DIRECTORY/ceiling.log")"
}

# --- figures ---

# measure SECONDS CONNECTIONS URL METHOD COUNT [NAME=VALUE...]: prints what keys.lua says: requests a second, errors,
# median and 99th percentile of the latency in µs.
measure() {
    local seconds=$1 connections=$2 url=$3 output
    shift 3
    output=$(pinned "$load_cpus" wrk -t 1 -c "$connections" -d "${seconds}s" --timeout 10s -s "$BENCH/keys.lua" "$url" \
        -- "$@") || die "wrk failed: $output"
    sed -n 's/^figures //p' <<<"$output"
}

# load, likewise: prints requests a second; fails if any was not answered 200.
load() {
    local figures rate errors
    figures=$(measure "$@")
    read -r rate errors _ <<<"$figures"
    [ "$errors" = 0 ] || die "not every request to $3 was answered 200: $errors errors"
    printf '%s\n' "$rate"
}

# median NUMBER...
median() {
    printf '%s\n' "$@" | sort -n | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# ratio A B: with two decimals.
ratio() {
    awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'
}
