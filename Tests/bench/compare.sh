#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# This store beside its peers, beside what limits it, and beside itself with more to hold. See README.md.
set -euo pipefail

BENCH=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$BENCH/../.." && pwd)
# shellcheck source=Tests/bench/lib.sh
. "$BENCH/lib.sh"

usage() {
    cat <<'END'
Usage: Tests/bench/compare.sh [--seconds N] [--rounds N] [--cpus SERVERS:LOAD] [--pairs N] [--moved N] [--results FILE]
                              [--install] [--write] [PART...]

  peers    nginx's memcached module, webdis over redis, and etcd: GET and POST, 100 B to 256 KiB, 1 to 1,024 connections
  latency  the 99th percentile at half of this store's own peak, beside nginx's at the same rate
  limits   nginx's fixed answer, alone and through HAProxy
  growth   a hop between nodes, many pairs, a ring of 100 nodes, idle connections, memory, add_node
           (without a PART: all four)

  --seconds N           of each measurement (2)
  --rounds N            of all measurements, in which all systems take turns; medians count (5)
  --cpus SERVERS:LOAD   processors of all that serves, and of what loads it, as taskset has them (0:1); none: any
  --pairs N             that are many (10000000; they take some 2.5 GiB)
  --moved N             pairs that add_node moves (1000000)
  --results FILE        where measurements are kept; those of other parts stay in it (.build/compare.tsv)
  --install             installs what is missing (apt-get, as root)
  --write               writes tables and chart to docs/, instead of printing the tables

Environment: KVSERVER_BINARY=/path/to/KVServer instead of .build/release/KVServer
END
}

seconds=2 rounds=5 cpus=0:1 pairs=10000000 moved=1000000 results=$ROOT/.build/compare.tsv installs=no report=() parts=()
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=${2?--seconds needs a number} && shift 2 ;;
    --rounds) rounds=${2?--rounds needs a number} && shift 2 ;;
    --cpus) cpus=${2?--cpus needs SERVERS:LOAD, or none} && shift 2 ;;
    --pairs) pairs=${2?--pairs needs a number} && shift 2 ;;
    --moved) moved=${2?--moved needs a number} && shift 2 ;;
    --results) results=${2?--results needs a file} && shift 2 ;;
    --install) installs=yes && shift ;;
    --write) report=(--write) && shift ;;
    --help | -h) usage && exit 0 ;;
    peers | latency | limits | growth) parts+=("$1") && shift ;;
    *) usage >&2 && exit 64 ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=(peers latency limits growth)
[[ $cpus =~ ^(none|[0-9,-]+:[0-9,-]+)$ ]] || { usage >&2 && exit 64; }

tools=(memcached=memcached nginx=nginx-light wrk=wrk haproxy=haproxy curl=curl python3=python3 pgrep=procps
    taskset=util-linux webdis=webdis redis-server=redis-server etcd=etcd-server gcc=gcc)

# Without starting their services.
install_missing() {
    local missing=()
    read -ra missing <<<"$(missing_of "${tools[@]}")"
    [ ${#missing[@]} = 0 ] || (
        # shellcheck source=deploy/lib/common.sh
        . "$ROOT/deploy/lib/common.sh"
        install_packages "${missing[@]}" libc6-dev
    )
}

# --- measurements ---

SIZES=(100 1024 16384 262144)
# So many keys that values of each size fill some megabytes, not the processor's cache, and fit into memory.
declare -A KEYS=([100]=10000 [1024]=10000 [16384]=1000 [262144]=64)
FIXED=$NETWORK.31:5000
declare -A ADDRESS=([store]=$NETWORK.11:5000 [store2]=$NETWORK.12:5000 [nginx]=$NETWORK.20:5000
    [webdis]=$NETWORK.21:5000 [webdis2]=$NETWORK.22:5000 [etcd]=$NETWORK.23:5000)
declare -A WAY=([store]=store [store2]=store [nginx]=store [webdis]=webdis [webdis2]=webdis [etcd]=etcd)

# Where there is one host a system, all of its processes share a processor, and what loads it has another: the budget is
# the same for all, however many processes a system is made of.
pin() {
    [ "$cpus" != none ] || return 0
    server_cpus=${cpus%:*} load_cpus=${cpus#*:}
}

# Where several hosts are played by one machine, or a host has several workers, one processor would be nobody's case.
unpin() { server_cpus='' load_cpus=''; }

planned() {
    case $1 in
    peers) echo $((rounds * (${#SIZES[@]} * 4 * 7 + 4))) ;;
    latency) echo $((rounds * 3)) ;;
    limits) echo $((rounds * 4)) ;;
    growth) echo $((rounds * 8 + move_rounds + 2)) ;;
    esac
}

done_count=0
# progress WHAT: before each measurement.
progress() {
    local left='?'
    [ "$done_count" = 0 ] || left=$(((total - done_count) * (SECONDS - began) / done_count / 60 + 1))
    done_count=$((done_count + 1))
    printf '[%d of %d, %s min left] %s\n' "$done_count" "$total" "$left" "$*" >&2
}

# Until nobody is busy with what came before (etcd goes on writing for seconds), for ten seconds at most.
settle() {
    local before after
    for _ in {1..100}; do
        before=$(awk '/^cpu / { print $5 + $6, $2 + $3 + $4 + $7 + $8 }' /proc/stat)
        sleep 0.1
        after=$(awk '/^cpu / { print $5 + $6, $2 + $3 + $4 + $7 + $8 }' /proc/stat)
        # shellcheck disable=SC2086 # words
        set -- $before $after
        [ $(($4 - $2)) -gt $((($3 - $1) / 8)) ] || return 0
    done
}

# record PART ROUND SYSTEM WORK BYTES CONNECTIONS UNIT VALUE [ERRORS MEDIAN_US P99_US]
record() {
    local line
    printf -v line '%s\t' "$@"
    printf '%s\n' "${line%$'\t'}" >>"$results"
}

# take PART SYSTEM WORK BYTES CONNECTIONS ADDRESS METHOD COUNT [NAME=VALUE...]: one measurement of round $round.
take() {
    local part=$1 system=$2 work=$3 bytes=$4 connections=$5 address=$6 seconds=$seconds figures
    shift 6
    # With a quarter of a GiB under way, many a first answer takes longer than a short measurement.
    [ $((bytes * connections)) -lt $((128 << 20)) ] || seconds=$((seconds * 4))
    progress "$part, round $((round + 1)): $system $work, $bytes bytes, $connections connections"
    settle
    figures=$(measure "$seconds" "$connections" "http://$address" "$@")
    # shellcheck disable=SC2086 # words
    record "$part" "$round" "$system" "$work" "$bytes" "$connections" requests/s $figures
}

# take_from PART SYSTEM WORK BYTES CONNECTIONS: of a system that `fill` has filled.
take_from() {
    take "$@" "${ADDRESS[$2]}" "$3" "${KEYS[$4]}" as="${WAY[$2]}" bytes="$4" prefix="v$4-"
}

# fill SYSTEM BYTES: stores all keys; a value read back has to be what was stored.
fill() {
    local system=$1 bytes=$2 address=${ADDRESS[$1]} held
    if [ "$system" = nginx ]; then
        fill_plain "$DIRECTORY/store/memcached.sock" "v$bytes-" "${KEYS[$bytes]}" "$bytes"
    else
        load 300 32 "http://$address" POST "${KEYS[$bytes]}" as="${WAY[$system]}" bytes="$bytes" prefix="v$bytes-" \
            once=yes >/dev/null
    fi
    held=$(case ${WAY[$system]} in
    store) curl -fsS "http://$address/route?key=v$bytes-7" ;;
    webdis) curl -fsS "http://$address/GET/v$bytes-7.txt" ;;
    etcd)
        curl -fsS "http://$address/v3/kv/range" -d "{\"key\":\"$(printf 'v%s-7' "$bytes" | base64)\"}" |
            sed -nE 's/.*"value":"([^"]*)".*/\1/p' | base64 -d
        ;;
    esac | tail -c +"$((bytes - 6))")
    [ "$held" = 0000007 ] || die "$system does not hold values of $bytes bytes"
}

# --- peers ---

# start_webdis NAME THREADS: over a redis of its own, which writes nothing to disk.
start_webdis() {
    local directory=$DIRECTORY/$1 address=${ADDRESS[$1]}
    mkdir -p "$directory"
    start "$directory/redis.log" redis-server --port 0 --unixsocket "$directory/redis.sock" --save '' --appendonly no \
        --dir "$directory" --daemonize no
    within 5 test -S "$directory/redis.sock" || die "redis did not start: $(tail -n 3 "$directory/redis.log")"
    cat >"$directory/webdis.json" <<END
{"redis_host": "$directory/redis.sock", "redis_port": 0, "redis_auth": null,
 "http_host": "${address%:*}", "http_port": ${address#*:}, "threads": $2, "daemonize": false, "database": 0,
 "verbosity": 0, "logfile": "$directory/webdis.log"}
END
    start "$directory/webdis.out" webdis "$directory/webdis.json"
    within 5 curl -fsS "http://$address/PING" || die "webdis does not serve: $(tail -n 3 "$directory/webdis.out")"
}

# Alone in its cluster. Its history is compacted, and its quota raised, so that a run's writes find room.
start_etcd() {
    local directory=$DIRECTORY/etcd address=${ADDRESS[etcd]} peer=$NETWORK.23:5001
    mkdir -p "$directory"
    start "$directory/etcd.log" env GOMAXPROCS=1 etcd --data-dir "$directory/data" --name bench --log-level error \
        --listen-client-urls "http://$address" --advertise-client-urls "http://$address" \
        --listen-peer-urls "http://$peer" --initial-advertise-peer-urls "http://$peer" \
        --initial-cluster "bench=http://$peer" \
        --auto-compaction-mode revision --auto-compaction-retention 1000 --quota-backend-bytes $((8 << 30))
    within 10 curl -fsS "http://$address/v3/kv/range" -d '{"key":"YQ=="}' ||
        die "etcd does not serve: $(tail -n 3 "$directory/etcd.log")"
}

bench_peers() {
    local round bytes connections work system
    pin
    start_node store "${ADDRESS[store]}" 1 512 1
    start_nginx "${ADDRESS[nginx]}" "$DIRECTORY/store/memcached.sock" "$FIXED"
    start_webdis webdis 1
    start_etcd
    for bytes in "${SIZES[@]}"; do
        for system in store nginx webdis etcd; do fill "$system" "$bytes"; done
    done
    for ((round = 0; round < rounds; round++)); do
        for bytes in "${SIZES[@]}"; do
            for connections in 1 32 128 1024; do
                for work in GET POST; do
                    for system in store nginx webdis etcd; do
                        # (nginx's module can't write.)
                        [ "$system $work" != 'nginx POST' ] || continue
                        take_from peers "$system" "$work" "$bytes" "$connections"
                    done
                done
            done
        done
    done
    end_all
    unpin
    start_node store2 "${ADDRESS[store2]}" 2 512 2
    start_webdis webdis2 2
    for system in store2 webdis2; do fill "$system" 100; done
    for ((round = 0; round < rounds; round++)); do
        for work in GET POST; do
            for system in store2 webdis2; do take_from peers "$system" "$work" 100 128; done
        done
    done
    end_all
}

# --- latency ---

bench_latency() {
    local round system peaks=() rate figures
    gcc -O2 -o "$DIRECTORY/open_loop" "$BENCH/open_loop.c" ||
        die "open_loop.c does not compile: apt-get install libc6-dev"
    pin
    start_node store "${ADDRESS[store]}" 1 512 1
    start_nginx "${ADDRESS[nginx]}" "$DIRECTORY/store/memcached.sock" "$FIXED"
    for system in store nginx; do fill "$system" 100; done
    for ((round = 0; round < rounds; round++)); do
        take_from latency store GET 100 128
        peaks+=("$(tail -n 1 "$results" | cut -f 8)")
    done
    rate=$(median "${peaks[@]}" | awk '{ printf "%d", $1 / 2 }')
    for ((round = 0; round < rounds; round++)); do
        for system in store nginx; do
            progress "latency, round $((round + 1)): $system GET, $rate/s, 128 connections"
            figures=$(pinned "$load_cpus" "$DIRECTORY/open_loop" "${ADDRESS[$system]%:*}" "${ADDRESS[$system]#*:}" \
                "$rate" "$seconds" 128 "${KEYS[100]}" "/route?key=v100-") || die "open_loop failed against $system"
            # shellcheck disable=SC2086 # words
            set -- ${figures#figures }
            record latency "$round" "$system" "GET at $rate/s" 100 128 requests/s "$1" "$2" "$3" "$4"
        done
    done
    end_all
}

# --- limits ---

bench_limits() {
    local round balancer=$NETWORK.10:5000 ceiling=$NETWORK.30:5000
    pin
    start_node store "${ADDRESS[store]}" 1 512 1
    start_nginx "${ADDRESS[nginx]}" "$DIRECTORY/store/memcached.sock" "$FIXED"
    fill store 100
    for ((round = 0; round < rounds; round++)); do
        take_from limits store GET 100 128
        take limits fixed GET 100 128 "$FIXED" GET "${KEYS[100]}"
    done
    end_all
    unpin
    start_nginx "${ADDRESS[nginx]}" "$DIRECTORY/none" "$FIXED"
    start_ceiling "$ceiling" "$FIXED"
    start_cluster 2 256 --replicas 1
    load 300 32 "http://$balancer" POST "${KEYS[100]}" once=yes >/dev/null
    for ((round = 0; round < rounds; round++)); do
        take limits store "GET through HAProxy" 100 128 "$balancer" GET "${KEYS[100]}"
        take limits fixed "GET through HAProxy" 100 128 "$ceiling" GET "${KEYS[100]}"
    done
    stop_cluster
    end_all
}

# --- growth ---

bench_growth() {
    grow_by_a_hop
    grow_by_pairs
    grow_by_nodes
    grow_by_connections
    grow_by_moves
}

# keys_of_slots COUNT LOW HIGH: of those that fill.py stores, one a line.
keys_of_slots() {
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$BENCH python3 -c '
import fill, sys
for number in fill.numbers(*map(int, sys.argv[1:])): print(f"move-{number}")' "$@"
}

grow_by_a_hop() {
    local round owner=$NETWORK.12:5000 other=$NETWORK.11:5000
    unpin
    start_cluster 2 256 --replicas 1
    # Nodes are at 3000 and 8000.
    python3 "$BENCH/fill.py" "$owner" 2000 3001 8000 >/dev/null
    keys_of_slots 2000 3001 8000 >"$DIRECTORY/keys"
    for ((round = 0; round < rounds; round++)); do
        take growth local GET 100 128 "$owner" GET 0 file="$DIRECTORY/keys"
        take growth forwarded GET 100 128 "$other" GET 0 file="$DIRECTORY/keys"
    done
    stop_cluster
}

resident_kib() { sed -nE 's/^VmRSS:\s+([0-9]+) kB/\1/p' "/proc/$1/status"; }

grow_by_pairs() {
    local round few=10000 memory=$((pairs * 200 / 1048576 + 100)) memcached before grown last
    pin
    # Room for all of them (of 192 bytes, a slab class) and little more, since the size of memcached's hash table goes
    # by that; the same for both.
    start_node few "$NETWORK.13:5000" 1 $memory 1
    start_node many "$NETWORK.14:5000" 1 $memory 1
    memcached=${pids[-2]}
    python3 "$BENCH/fill.py" "$NETWORK.13:5000" $few >/dev/null
    before=$(resident_kib "$memcached")
    progress "growth: storing $pairs pairs"
    last=$(python3 "$BENCH/fill.py" "$NETWORK.14:5000" "$pairs")
    [ "$last" = $((pairs - 1)) ] || die "fill.py stored other keys"
    # Keys are `move-` and a number.
    grown=$(($(resident_kib "$memcached") - before))
    record growth 0 many memory 100 0 bytes/pair "$(awk -v kib=$grown -v n="$pairs" '
        BEGIN {
            for (low = 1; low <= n; low *= 10) digits += (n > low * 10 ? low * 10 - low : n - low) * length(low)
            printf "%.1f", kib * 1024 / n - 100 - 5 - (digits + 1) / n
        }')"
    for ((round = 0; round < rounds; round++)); do
        take growth "$few pairs" GET 100 128 "$NETWORK.13:5000" GET $few prefix=move- lazily=yes
        take growth "many pairs" GET 100 128 "$NETWORK.14:5000" GET "$pairs" prefix=move- lazily=yes
    done
    end_all
}

# ring_of NODES OWN_ADDRESS: the node itself at 9999, and others that do not exist right before 100, which keeps them
# out of the way of the keys that are asked for.
ring_of() {
    local number
    printf '{"ip":"%s","key":9999}' "$2"
    for ((number = 1; number < $1; number++)); do
        printf ',{"ip":"%s.%d:5000","key":%d}' "$NETWORK" $((100 + number)) $((100 - number))
    done
}

grow_by_nodes() {
    local round count addresses=([2]=$NETWORK.15:5000 [100]=$NETWORK.16:5000)
    pin
    keys_of_slots 10000 100 9999 >"$DIRECTORY/keys"
    for count in 2 100; do
        start_node "ring$count" "${addresses[count]}" 1 256 1 "$(ring_of $count "${addresses[count]}")"
        python3 "$BENCH/fill.py" "${addresses[count]}" 10000 100 9999 >/dev/null
    done
    for ((round = 0; round < rounds; round++)); do
        for count in 2 100; do
            take growth "$count nodes" GET 100 128 "${addresses[count]}" GET 0 file="$DIRECTORY/keys"
        done
    done
    end_all
}

grow_by_connections() {
    # (An idle connection stays for 10 s.)
    local seconds=$((seconds < 6 ? seconds : 6))
    local round idle_count=10000 address=${ADDRESS[store]} worker holder line loader resident
    pin
    start_node store "$address" 1 512 1
    worker=$(pgrep -P "${pids[-1]}")
    fill store 100
    progress "growth: memory of a worker with 1,024 connections"
    measure $((seconds + 1)) 1024 "http://$address" GET "${KEYS[100]}" prefix=v100- >"$DIRECTORY/figures" &
    loader=$!
    sleep "$seconds"
    resident=$(resident_kib "$worker")
    wait $loader
    read -r _ line _ <"$DIRECTORY/figures"
    record growth 0 worker memory 100 1024 KiB "$resident" "$line"
    for ((round = 0; round < rounds; round++)); do
        take growth "no idle connections" GET 100 128 "$address" GET "${KEYS[100]}" prefix=v100-
        coproc HOLDER { exec python3 "$BENCH/idle_connections.py" "$address" $idle_count; }
        # shellcheck disable=SC2153 # coproc sets it
        holder=$HOLDER_PID
        pids+=("$holder")
        read -r line <&"${HOLDER[0]}" || die "there are not $idle_count connections"
        take growth "$idle_count idle connections" GET 100 128 "$address" GET "${KEYS[100]}" prefix=v100-
        eval "exec ${HOLDER[1]}>&-"
        wait "$holder" || die "idle connections did not stay"
        unset 'pids[-1]'
    done
    end_all
}

grow_by_moves() {
    local round node=$NETWORK.12:5000 standby=$NETWORK.13:5000 scanned begin end
    unpin
    for ((round = 0; round < move_rounds; round++)); do
        progress "growth, round $((round + 1)): add_node moves $moved pairs"
        start_cluster 3 $((moved / 2048 + 64)) --replicas 1
        python3 "$BENCH/fill.py" "$node" "$moved" 3001 5000 >/dev/null
        scanned=$(python3 "$BENCH/scan.py" "$KVSERVER_LOCAL/node2/memcached.sock")
        record growth "$round" scan move 100 0 pairs/s "$scanned"
        begin=$(date +%s%N)
        [ "$(curl -sS -m 500 "http://$node/add_node/5000/$standby")" = OK ] || die "add_node failed"
        end=$(date +%s%N)
        record growth "$round" add_node move 100 0 pairs/s $((moved * 1000000000 / (end - begin)))
        stop_cluster
    done
}

# --- all of it ---

[ "$installs" = no ] || install_missing
require "${tools[@]}"
begin
mkdir -p "$(dirname "$results")"
touch "$results"
move_rounds=$((rounds < 3 ? rounds : 3))
total=0 began=$SECONDS
for part in "${parts[@]}"; do total=$((total + $(planned "$part"))); done
for part in "${parts[@]}"; do
    # What was measured of it before is another run's.
    awk -F '\t' -v part="$part" '$1 != part && $1 != "# " part' "$results" >"$DIRECTORY/results"
    cat "$DIRECTORY/results" >"$results"
    printf '# %s\trounds: %s, of %s s each; processors of servers and load: %s\n' "$part" "$rounds" "$seconds" "$cpus" \
        >>"$results"
    "bench_$part"
done
python3 "$BENCH/compare_report.py" "${report[@]}" "$results"
