# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# ./setup.sh local: a cluster on this machine's loopback addresses. To be sourced by setup.sh.
#
# A part is a process that the state directory has a pid file for. Whether that pid is still that part is told by its
# command line, which names a file under the state directory; nothing is ever ended by name.

STATE=${KVSERVER_LOCAL:-$HERE/.local}
PORT=5000

local_usage() {
    cat <<'END'
Usage: ./setup.sh local [--nodes K] [--replicas N] [--workers W] [--memory MIB] [--memcached-port PORT] [--network A.B.C]
                        [--warm-restart yes|no]
       ./setup.sh local status            what runs, and the ring; fails if a part is missing
       ./setup.sh local logs [-f] [PART]  the end of the logs (of node1, haproxy, sync, ...); -f follows them
       ./setup.sh local reload            replaces each node's workers one by one (SIGHUP); costs no request
       ./setup.sh local reload-haproxy    HAProxy takes up haproxy.cfg as it is now; costs no request
       ./setup.sh local restart [NODE...] restarts these nodes (1, 2, ...), or all, one by one: daemon and memcached.
                                          The pairs stay; those of the node that restarts answer 503 meanwhile
       ./setup.sh local down              stops it; pairs and ring are gone with it, logs stay

Without a word, it installs what is missing (with apt-get, through sudo unless you are root), builds the daemon for
release, starts the cluster, stores a pair and reads it back. Run again, it starts the parts that have died. Workers and
memcacheds that die are started again by themselves (by the supervisor, and by deploy/watch-memcached.sh).

    HAProxy    127.0.0.10:5000   (statistics: http://127.0.0.10:8404/)
    node 1     127.0.0.11:5000   position 3000     each node with a
    node 2     127.0.0.12:5000   position 8000     memcached of its own
    node 3     127.0.0.13:5000   standby, in no position

  --nodes K        1 to 50 nodes (3). From three on, the last one is the standby; the others are spread evenly over the
                   ring, from position 3000 on. One or two nodes are all in the ring.
  --replicas N     how many nodes hold each pair, 1 to 9 (3); all that are in the ring where those are fewer
  --workers W      worker processes a node (2)
  --memory MIB     memory for the pairs of each node (512)
  --memcached-port PORT
                   every node also speaks memcached's protocol, at this port of its own address (it does not)
  --network A.B.C  other loopback addresses (127.0.0), for a second cluster: 127.0.1
  --warm-restart yes|no
                   whether the pairs lie in /dev/shm, so that they outlast `restart` (yes where that has room for the
                   memory of all nodes and --memory is 40 or more, else no)

Everything but the pairs lies in .local/ of the checkout: node1/supervisor.pid, node1/memcached.pid, node1/watcher.pid,
haproxy.pid, sync.pid, node1/kvserver.log and so on, so that you can kill a part and watch.

Environment: KVSERVER_BINARY=/path/to/KVServer   runs that instead of building
             KVCTL_BINARY=/path/to/kvctl         keeps HAProxy as the ring is (what is beside KVServer)
             KVSERVER_LOCAL=/path                keeps the state there instead of in .local/
END
}

setup_local() {
    local command=up
    case ${1:-} in
    up | status | logs | reload | reload-haproxy | restart | down) command=$1 && shift ;;
    --help | -h) local_usage && return ;;
    esac
    [[ " $* " != *' --help '* && " $* " != *' -h '* ]] || { local_usage && return; }
    case $command in
    logs) local_logs "$@" && return ;;
    up) ;;
    restart) restarted=("$@") ;;
    *) [ $# = 0 ] || misused "local $command takes no arguments" ;;
    esac
    nodes='' replicas='' workers='' memory='' memcached_port='' network='' warm=''
    if [ "$command" = up ]; then
        options=$*
        read_options "$@"
        mkdir -p "$STATE"
    elif [ ! -e "$STATE/settings" ]; then
        say "No cluster has been set up in $STATE."
        [ "$command" = down ] || return 1
        return 0
    fi
    # One setup.sh at a time. (Parts are started with descriptor 9 closed, so none holds the lock.)
    if [ "$command" != status ]; then
        exec 9>"$STATE/lock"
        flock -w 60 9 || die "another setup.sh is at work in $STATE"
    fi
    "local_${command//-/_}"
}

# --- settings ---

read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --nodes) needs_value "$@" && nodes=$2 ;;
        --workers) needs_value "$@" && workers=$2 ;;
        --replicas) needs_value "$@" && replicas=$2 ;;
        --memory) needs_value "$@" && memory=$2 ;;
        --memcached-port) needs_value "$@" && memcached_port=$2 ;;
        --network) needs_value "$@" && network=$2 ;;
        --warm-restart) needs_value "$@" && warm=$2 ;;
        *) misused "unknown argument: $1" ;;
        esac
        shift 2
    done
    is_number "${nodes:-3}" 1 50 || misused "--nodes takes 1 to 50: $nodes"
    is_number "${replicas:-3}" 1 9 || misused "--replicas takes 1 to 9: $replicas"
    is_number "${workers:-2}" 1 256 || misused "--workers takes 1 to 256: $workers"
    is_number "${memory:-512}" 16 1000000 || misused "--memory takes MiB from 16 up: $memory"
    if ! is_number "${memcached_port:-11211}" 1 65535 || [ "$memcached_port" = "$PORT" ]; then
        misused "--memcached-port takes a port other than $PORT: $memcached_port"
    fi
    if [[ ${network:-127.0.0} != 127.* ]] || ! is_endpoint "${network:-127.0.0}.1:1"; then
        misused "--network takes the first three bytes of loopback addresses, such as 127.0.1: $network"
    fi
    [[ ${warm:-yes} =~ ^(yes|no)$ ]] || misused "--warm-restart takes yes or no: $warm"
}

# Sets whatever no option has set from the settings of last time, or from the defaults.
settle_options() {
    local saved_nodes='' saved_replicas='' saved_workers='' saved_memory='' saved_memcached_port='' saved_network='' saved_warm=''
    # (The variables are assigned by name here.)
    local name value
    if [ -e "$STATE/settings" ]; then
        while IFS='=' read -r name value; do
            case $name in nodes | replicas | workers | memory | memcached_port | network | warm) printf -v "saved_$name" %s "$value" ;; esac
        done <"$STATE/settings"
    fi
    nodes=${nodes:-${saved_nodes:-3}}
    replicas=${replicas:-${saved_replicas:-3}}
    workers=${workers:-${saved_workers:-2}}
    memory=${memory:-${saved_memory:-512}}
    memcached_port=${memcached_port:-$saved_memcached_port}
    network=${network:-${saved_network:-127.0.0}}
    warm=${warm:-${saved_warm:-auto}}
    settings=$(printf 'nodes=%s\nreplicas=%s\nworkers=%s\nmemory=%s\nnetwork=%s\nwarm=%s' \
        "$nodes" "$replicas" "$workers" "$memory" "$network" "$warm")
    [ -z "$memcached_port" ] || settings+=$'\nmemcached_port='$memcached_port
    BALANCER=$network.10
    if [ "$nodes" -ge 3 ]; then members=$((nodes - 1)); else members=$nodes; fi
}

address_of() {
    printf '%s.%s:%s' "$network" $((10 + $1)) "$PORT"
}

position_of() {
    printf '%s' $(((3000 + ($1 - 1) * 10000 / members) % 10000))
}

# --- parts ---

supervisor_pid() { part_pid "$STATE/node$1/supervisor.pid" "$STATE/node$1/kvserver.json"; }
memcached_pid() { part_pid "$STATE/node$1/memcached.pid" "$STATE/node$1/memcached.sock"; }
watcher_pid() { part_pid "$STATE/node$1/watcher.pid" "$STATE/node$1/memcached.pid"; }
haproxy_pid() { part_pid "$STATE/haproxy.pid" "$STATE/haproxy.cfg"; }
sync_pid() { part_pid "$STATE/sync.pid" "$STATE/haproxy.sock"; }

# part_pid PIDFILE FILE: prints the pid if it runs and its command line names FILE.
part_pid() {
    local pid
    [ -e "$1" ] || return 1
    read -r pid <"$1" || return 1
    is_number "$pid" 2 999999999 && names_file "$pid" "$2" || return 1
    printf '%s' "$pid"
}

names_file() {
    { tr '\0' '\n' <"/proc/$1/cmdline"; } 2>/dev/null | grep -qxF -- "$2"
}

# all_pids: "pid" lines of every part that runs.
all_pids() {
    local node
    { haproxy_pid && echo; } || true
    { sync_pid && echo; } || true
    for ((node = 1; node <= nodes; node++)); do
        { supervisor_pid "$node" && echo; } || true
        { memcached_pid "$node" && echo; } || true
        { watcher_pid "$node" && echo; } || true
    done
}

# launch LOG PIDFILE COMMAND...: starts it in a session of its own.
launch() {
    local log=$1 file=$2
    shift 2
    setsid "$@" </dev/null >>"$log" 2>&1 9>&- &
    printf '%s\n' $! >"$file"
}

# require_free ADDRESS:PORT FILE: dies saying who listens there. One whose command line names FILE is an orphan of ours,
# and about to leave; one that has no command line any more is about to be gone.
require_free() {
    local owner end=$((SECONDS + 15))
    while owner=$(listener_of "$1"); do
        if [[ $owner != *"$2"* && $owner != *': ' ]]; then
            if [[ $owner =~ ([^ ]*)/(node[0-9]+/kvserver.json|haproxy.cfg) ]]; then
                owner+=$'\n'"That looks like another cluster, with its state in ${BASH_REMATCH[1]}: stop it there with"
                owner+=" \`./setup.sh local down\`, or start this one elsewhere with \`--network 127.0.1\`."
            fi
            die "$1 is taken by $owner"
        fi
        [ $SECONDS -lt $end ] || die "$1 is still held by what an earlier node left behind, $owner"
        sleep 0.2
    done
}

# --- up ---

local_up() {
    local node
    settle_options
    if [ -n "$(all_pids)" ]; then
        [ -z "$options" ] || [ "$settings" = "$(cat "$STATE/settings")" ] ||
            die "a cluster with other settings runs here; first: ./setup.sh local down"
    elif [ "$settings" != "$(cat "$STATE/settings" 2>/dev/null)" ]; then
        # Another cluster than last time: its nodes start without a ring, and without pairs.
        rm -rf "$STATE"/node*/state "$(memory_directory)"
    fi
    local parts=$((2 + 3 * nodes)) running
    running=$(all_pids | wc -l)
    if [ "$running" = $parts ]; then
        say "All $parts parts of the cluster run."
    else
        require_tools
        find_binary
        check_ports
        printf '%s\n' "$settings" >"$STATE/settings"
        choose_memory_files
        say "Starting the cluster ..."
        for ((node = 1; node <= nodes; node++)); do start_memcached "$node"; done
        for ((node = 1; node <= nodes; node++)); do start_supervisor "$node"; done
    fi
    for ((node = 1; node <= nodes; node++)); do
        within 15 http "http://$(address_of "$node")/health/live" || part_failed "node $node does not answer" "node$node/kvserver.log"
    done
    install_ring
    for ((node = 1; node <= nodes; node++)); do
        within 15 http "http://$(address_of "$node")/health/ready" || part_failed "node $node is not ready" "node$node/kvserver.log"
    done
    start_haproxy
    within 10 http "http://$BALANCER:$PORT/" || part_failed "HAProxy does not answer" haproxy.log
    start_sync
    try_it
}

part_failed() {
    say "--- $STATE/$2:" >&2
    tail -n 20 "$STATE/$2" >&2 || true
    die "$1. What else runs has been left running: ./setup.sh local status, ./setup.sh local down"
}

require_tools() {
    local missing=()
    command -v memcached >/dev/null || missing+=(memcached)
    command -v haproxy >/dev/null || missing+=(haproxy)
    command -v curl >/dev/null || missing+=(curl)
    command -v ss >/dev/null || missing+=(iproute2)
    command -v ps >/dev/null || missing+=(procps)
    if [ -z "${KVSERVER_BINARY:-}" ]; then
        check_swift
        # (SwiftPM asks pkg-config where libmemcached is.)
        command -v pkg-config >/dev/null || missing+=(pkg-config)
        if ! pkg-config --exists libmemcached 2>/dev/null; then missing+=(libmemcached-dev); fi
    fi
    if [ ${#missing[@]} != 0 ]; then install_packages "${missing[@]}"; fi
}

find_binary() {
    binary=${KVSERVER_BINARY:-}
    if [ -z "$binary" ]; then
        local build=(swift build --package-path "$HERE" -c release --product)
        say "Building the daemon and kvctl for release; the first time takes some minutes ..."
        "${build[@]}" KVServer || die "the build failed"
        "${build[@]}" kvctl || die "the build failed"
        binary=$("${build[@]}" KVServer --show-bin-path)/KVServer
    fi
    [ -x "$binary" ] || die "there is no program at $binary"
    binary=$(realpath "$binary")
    ! ldd "$binary" 2>/dev/null | grep 'not found' || die "$binary lacks the libraries above"
}

check_ports() {
    local node at
    for ((node = 1; node <= nodes; node++)); do
        for at in "$(address_of "$node")" ${memcached_port:+"$network.$((10 + node)):$memcached_port"}; do
            supervisor_pid "$node" >/dev/null || require_free "$at" "$STATE/node$node/kvserver.json"
        done
    done
    if ! haproxy_pid >/dev/null; then
        require_free "$BALANCER:$PORT" "$STATE/haproxy.cfg"
        require_free "$BALANCER:8404" "$STATE/haproxy.cfg"
    fi
}

# On a tmpfs, and this state directory's own.
memory_directory() {
    printf '/dev/shm/kvserver-%s-%.16s' "$(id -u)" "$(realpath -m "$STATE" | sha256sum)"
}

# Sets memory_files to where the nodes' memory is to lie, or to nothing where it is to be gone with its memcached.
choose_memory_files() {
    local why
    memory_files=''
    [ "$warm" != no ] || return 0
    why=$(obstacle_to_memory_files)
    if [ -z "$why" ]; then
        memory_files=$(memory_directory)
    else
        [ "$warm" = auto ] || die "there can be no warm restart: $why"
        say "Pairs won't outlast a restart of their memcached: $why"
    fi
}

# Makes the directory for them, or prints why not.
obstacle_to_memory_files() {
    local directory room held
    if [ "$memory" -lt 40 ]; then
        echo "memcached needs --memory 40 for that, or more" && return
    fi
    if [ "$(stat -f -c %T /dev/shm 2>/dev/null)" != tmpfs ]; then
        echo "/dev/shm is no tmpfs here" && return
    fi
    directory=$(memory_directory)
    # (Anybody may make a directory of that name there.)
    mkdir -m 700 "$directory" 2>/dev/null || true
    if [ ! -d "$directory" ] || [ -L "$directory" ] || [ ! -O "$directory" ]; then
        echo "$directory is not ours" && return
    fi
    room=$(df --output=avail -B 1M /dev/shm | tail -n 1)
    held=$(du -sm "$directory" | cut -f 1)
    if [ $((room + held)) -lt $((nodes * memory)) ]; then
        rmdir "$directory" 2>/dev/null || true
        echo "/dev/shm has room for $((room + held)) MiB, and $nodes nodes of $memory MiB need more" && return
    fi
}

start_memcached() {
    local directory=$STATE/node$1 file=()
    watcher_pid "$1" >/dev/null && memcached_pid "$1" >/dev/null && return
    [ ${#STATE} -le 80 ] || die "$STATE is too long a path for unix sockets: set KVSERVER_LOCAL to a shorter one"
    mkdir -p "$directory"
    if ! watcher_pid "$1" >/dev/null; then
        memcached_pid "$1" >/dev/null || rm -f "$directory/memcached.sock"
        [ -z "$memory_files" ] || file=(--memory-file "$memory_files/node$1")
        launch "$directory/memcached.log" "$directory/watcher.pid" \
            "$HERE/deploy/watch-memcached.sh" --pid-file "$directory/memcached.pid" \
            --socket "$directory/memcached.sock" --memory "$memory" --threads 2 ${file[@]+"${file[@]}"}
    fi
    within 15 memcached_listens "$1" || part_failed "memcached of node $1 did not start" "node$1/memcached.log"
}

memcached_listens() {
    memcached_pid "$1" && [ -S "$STATE/node$1/memcached.sock" ]
}

start_supervisor() {
    local directory=$STATE/node$1 port=''
    supervisor_pid "$1" >/dev/null && return
    mkdir -p "$directory/state"
    [ -z "$memcached_port" ] || port=$'\n  "memcachedPort": '$memcached_port,
    cat >"$directory/kvserver.json" <<END
{
  "node": "$(address_of "$1")",
  "workers": $workers,$port
  "memcached": $(json_string "$directory/memcached.sock"),
  "stateDirectory": $(json_string "$directory/state")
}
END
    launch "$directory/kvserver.log" "$directory/supervisor.pid" "$binary" --config "$directory/kvserver.json"
}

# The ring, as GET /hash_ring of a node has it: "position=ip:port" lines. Fails if it has none.
ring_of() {
    local answer
    answer=$(http "http://$(address_of "$1")/hash_ring" 2>/dev/null) || return 1
    # (A node without a ring answers with an empty one.)
    answer=$(grep -oE '"[0-9]+" *: *"[0-9.:]+"' <<<"$answer") || return 1
    tr -d '" ' <<<"$answer" | sed 's/:/=/' | sort -n
}

# Gives the default ring to a cluster that has none, and the cluster's to those of its nodes that have none.
install_ring() {
    local node ring='' without=() arguments=()
    # A node that was here before has its ring on disk, and comes to know it in a moment.
    if compgen -G "$STATE/node*/state/*" >/dev/null; then within 10 ring_of_any || true; fi
    for ((node = 1; node <= nodes; node++)); do
        ring_of "$node" >/dev/null || without+=("$node")
    done
    [ ${#without[@]} != 0 ] || return 0
    ring=$(ring_of_any) || for ((node = 1; node <= members; node++)); do
        ring+="$(position_of "$node")=$(address_of "$node") "
    done
    local entry standbys=''
    for ((node = 1; node <= nodes; node++)); do
        [[ "$ring " == *"=$(address_of "$node")"[[:space:]]* ]] || standbys+=" --standby $(address_of "$node")"
    done
    for entry in $ring; do arguments+=("${entry#*=}=${entry%%=*}"); done
    # shellcheck disable=SC2086 # words
    "$HERE/deploy/reconfigure.sh" --replicas "$replicas" "${arguments[@]}" $standbys || die "the ring could not be installed everywhere"
}

ring_of_any() {
    local node
    for ((node = 1; node <= nodes; node++)); do
        if ring_of "$node"; then return; fi
    done
    return 1
}

# What .local/haproxy.cfg should be.
local_balancer() {
    local node servers='' most=20000 descriptors
    descriptors=$(ulimit -Hn)
    if [ "$descriptors" != unlimited ] && [ "$descriptors" -lt 41000 ]; then most=$(((descriptors - 400) / 2)); fi
    for ((node = 1; node <= nodes; node++)); do
        servers+="${servers:+$'\n'}    server node$node $(address_of "$node")"
    done
    # (HAProxy gives its socket this name once it listens; with the suffix that it has until then, 107 bytes are the limit.)
    render_balancer "$BALANCER:$PORT" "$BALANCER:8404" "    maxconn $most
    stats socket unix@$STATE/haproxy.sock mode 600 level admin" "$servers" "$STATE/ring.map"
}

start_haproxy() {
    haproxy_pid >/dev/null && return
    empty_map "$STATE/ring.map"
    local_balancer >"$STATE/haproxy.cfg"
    haproxy -c -q -f "$STATE/haproxy.cfg" || die "HAProxy refuses $STATE/haproxy.cfg"
    launch "$STATE/haproxy.log" "$STATE/haproxy.pid" haproxy -W -f "$STATE/haproxy.cfg"
}

# kvctl, which keeps HAProxy as the ring is. (Without it HAProxy asks all nodes in turn.)
start_sync() {
    local node nodes_to_ask=()
    # (Beside the program that runs already, where nothing was built now.)
    control=${KVCTL_BINARY:-}
    [ -n "$control" ] || control=$(dirname "${binary:-$(program_of_node 1)}")/kvctl
    [ -x "$control" ] || die "there is no program at $control; build it, or name it: KVCTL_BINARY=/path/to/kvctl"
    sync_pid >/dev/null && return
    for ((node = 1; node <= nodes; node++)); do nodes_to_ask+=(--node "$(address_of "$node")"); done
    launch "$STATE/sync.log" "$STATE/sync.pid" \
        "$control" haproxy sync --watch --socket "$STATE/haproxy.sock" --map "$STATE/ring.map" "${nodes_to_ask[@]}"
}

# What node N was started from.
program_of_node() {
    { tr '\0' '\n' <"/proc/$(supervisor_pid "$1")/cmdline"; } 2>/dev/null | head -n 1
}

# Reads the pair of try_it into $answer.
read_hello() { answer=$(http "$at/route?key=hello"); }

try_it() {
    local at=http://$BALANCER:$PORT answer='' taken free
    # (A node whose memcached has just come back may need a moment until all its workers serve.)
    within 5 http --data 'key=hello&val=world' "$at/route" || die "storing a pair failed: ./setup.sh local logs"
    within 5 read_hello || die "reading a pair failed: ./setup.sh local logs"
    [ "$answer" = world ] || die "stored 'world' under 'hello' and read '$answer'"
    cat <<END

The cluster runs. Stored through $BALANCER:$PORT and read back: hello = $answer

Try next:
  curl -d 'key=roof&val=red' $at/route         # store a pair
  curl '$at/route?key=roof'                    # read it
  curl '$at/route_test?key=roof'               # which node owns it
  curl $at/hash_ring                           # the ring
  KVCTL_NODE=$BALANCER:$PORT ${control:-kvctl} status
END
    [ -z "$memcached_port" ] ||
        say "  printf 'set roof 0 0 3\\r\\nred\\r\\nget roof\\r\\nquit\\r\\n' | curl -s telnet://$network.11:$memcached_port    # memcached's protocol"
    if [ "$nodes" -ge 3 ]; then
        # The middle of the first member's part of the ring; between 3000 and 8000, the round 5000.
        free=$((3000 + 5000 / members))
        [ "$members" != 2 ] || free=5000
        taken=$(ring_of 1 || true)
        [[ $taken == *"=$(address_of "$nodes")"* ]] ||
            say "  curl $at/add_node/$free/$(address_of "$nodes")      # the standby joins, while all goes on"
        [[ $taken != *"=$(address_of 2)"* ]] ||
            say "  curl $at/remove_node/$(address_of 2)         # node 2 leaves, and its pairs move"
    fi
    local here=./setup.sh shown=$STATE
    [ "$PWD" = "$HERE" ] || here=$HERE/setup.sh
    shown=${shown#"$PWD/"}
    cat <<END
  kill -9 \$(pgrep -P \$(cat $shown/node1/supervisor.pid) | head -n 1)    # a worker dies; nobody notices
  $here local status                           # also: logs, reload, restart, down
Statistics: http://$BALANCER:8404/
END
}

# --- the other commands ---

local_status() {
    settle_options
    local node pid absent=0 ready positions workers_now
    part() { # NAME PID
        if [ -n "$2" ]; then
            printf '%s %s%s' "$1" "$2" "$(sed -n 's/^State:.T.*/ (stopped)/p' "/proc/$2/status" 2>/dev/null)"
        else
            printf '%s DOWN' "$1" && return 1
        fi
    }
    for ((node = 1; node <= nodes; node++)); do
        pid=$(supervisor_pid "$node" || true)
        ready=$(http "http://$(address_of "$node")/health/ready" >/dev/null 2>&1 && echo ready || echo 'NOT READY')
        positions=$({ ring_of "$node" || true; } | sed -n "s/=$(address_of "$node")\$//p" | paste -sd ' ') || true
        printf 'node%-3s %-16s %-9s ' "$node" "$(address_of "$node")" "$ready"
        [ "$ready" = ready ] || absent=$((absent + 1))
        part supervisor "$pid" || absent=$((absent + 1))
        workers_now=''
        [ -z "$pid" ] || workers_now=$(pgrep -P "$pid" | paste -sd ' ' || true)
        printf ', workers %s, ' "${workers_now:-none}"
        part memcached "$(memcached_pid "$node" || true)" || absent=$((absent + 1))
        printf ' ('
        part watcher "$(watcher_pid "$node" || true)" || absent=$((absent + 1))
        printf '), %s\n' "${positions:+at }${positions:-in no position}"
    done
    printf 'HAProxy %-16s %-9s ' "$BALANCER:$PORT" ''
    part master "$(haproxy_pid || true)" || absent=$((absent + 1))
    printf ', nodes up: %s\n' "$(http "http://$BALANCER:8404/;csv" 2>/dev/null |
        awk -F, '$1 == "nodes" && $2 != "BACKEND" && $18 ~ /^UP/ { printf "%s ", $2 }' || true)"
    printf 'sync    %-16s %-9s ' '' ''
    part kvctl "$(sync_pid || true)" || absent=$((absent + 1))
    printf '\n'
    [ "$absent" = 0 ] || { say "$absent missing; ./setup.sh local starts what is down" && return 1; }
}

local_logs() {
    local follow='' part='*'
    [ "${1:-}" != -f ] || { follow=-F && shift; }
    [ $# = 0 ] || { part=$1 && shift; }
    if [ $# != 0 ] || [[ ! $part =~ ^(\*|haproxy|sync|node[0-9]+)$ ]]; then
        misused "local logs takes -f, and haproxy, sync or node1, node2, ..."
    fi
    local files=()
    shopt -s nullglob
    case $part in
    '*') files=("$STATE"/*.log "$STATE"/node*/*.log) ;;
    haproxy | sync) files=("$STATE/$part.log") ;;
    *) files=("$STATE/$part"/*.log) ;;
    esac
    [ ${#files[@]} != 0 ] || die "there are no logs of it in $STATE"
    tail -n 20 $follow "${files[@]}"
}

local_reload() {
    settle_options
    local node pid
    for ((node = 1; node <= nodes; node++)); do
        pid=$(supervisor_pid "$node") || die "node $node is down; ./setup.sh local starts it"
        kill -HUP "$pid"
        say "node $node replaces its workers"
    done
}

local_reload_haproxy() {
    settle_options
    local pid
    pid=$(haproxy_pid) || die "HAProxy is down; ./setup.sh local starts it"
    local_balancer >"$STATE/haproxy.cfg.new"
    haproxy -c -q -f "$STATE/haproxy.cfg.new" || die "HAProxy refuses haproxy.cfg as it is now; the old one stays"
    mv "$STATE/haproxy.cfg.new" "$STATE/haproxy.cfg"
    kill -USR2 "$pid"
    say "HAProxy takes up $STATE/haproxy.cfg"
}

# local_restart: the nodes of `restarted`, or all.
local_restart() {
    settle_options
    # shellcheck source-path=SCRIPTDIR source=restart.sh
    . "$HERE/deploy/lib/restart.sh"
    local node
    [ ${#restarted[@]} != 0 ] || for ((node = 1; node <= nodes; node++)); do restarted+=("$node"); done
    for node in "${restarted[@]}"; do
        is_number "$node" 1 "$nodes" || misused "local restart takes numbers of nodes, 1 to $nodes: $node"
    done
    begin_restarts "./setup.sh local"
    for current in "${restarted[@]}"; do
        for ((node = 1; node <= nodes; node++)); do
            require_ready "node $node" "$(address_of "$node")"
        done
        # The program that runs now, or what has been put in its place since; nothing is built here.
        binary=$(program_of_node "$current") || true
        [ -x "$binary" ] || die "there is no program at '$binary', which node $current was started from"
        restart_node "node $current" "$(address_of "$current")" "$STATE/node$current/memcached.sock"
    done
}

# What restart_node calls, for node `current`.

stop_daemon() {
    end "$(supervisor_pid "$current" || true)" 15
    require_free "$(address_of "$current")" "$STATE/node$current/kvserver.json"
}

stop_memcached() {
    local end=$((SECONDS + 30))
    old=$(memcached_pid "$current") || return 1
    kill -USR1 "$old"
    while kill -0 "$old" 2>/dev/null; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

# (Its watcher starts it, in its own time.)
start_memcached_again() { within 30 memcached_is_another; }
memcached_is_another() {
    [ "$(memcached_pid "$current")" != "${old:-}" ] && statistic "$STATE/node$current/memcached.sock" pid
}
start_daemon() { start_supervisor "$current"; }

# end PIDS SECONDS: ends them, by force when the seconds are over.
end() {
    local pid limit=$((SECONDS + $2))
    for pid in $1; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in $1; do
        while kill -0 "$pid" 2>/dev/null && ! grep -qs '^State:.Z' "/proc/$pid/status"; do
            if [ $SECONDS -ge $limit ]; then kill -KILL "$pid" 2>/dev/null || true; fi
            sleep 0.1
        done
    done
}

local_down() {
    settle_options
    local node pids=''
    end "$(sync_pid || true)" 5
    end "$(haproxy_pid || true)" 5
    for ((node = 1; node <= nodes; node++)); do pids+=" $(supervisor_pid "$node" || true)"; done
    end "$pids" 15
    # A watcher ends its memcached; where there is none, the pid file still names one that runs.
    pids=''
    for ((node = 1; node <= nodes; node++)); do pids+=" $(watcher_pid "$node" || true)"; done
    end "$pids" 8
    pids=''
    for ((node = 1; node <= nodes; node++)); do pids+=" $(memcached_pid "$node" || true)"; done
    end "$pids" 5
    rm -rf "$STATE"/{haproxy.pid,sync.pid,haproxy.sock} "$STATE"/node*/{supervisor.pid,watcher.pid,memcached.pid,memcached.lock,memcached.sock,state}
    rm -rf "$(memory_directory)"
    say "The cluster is down. (Its logs are in $STATE.)"
}
