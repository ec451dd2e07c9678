#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Restarts a node, daemon and memcached, and keeps its pairs.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$HERE/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/restart.sh
. "$HERE/lib/restart.sh"

usage() {
    cat <<'END'
Usage: sudo /usr/lib/kvserver/restart-node.sh [--config FILE]     the node of this machine (systemd's)
       deploy/restart-node.sh --all IP:PORT [--ssh COMMAND]        every node that this one knows, one after the other
       deploy/restart-node.sh --local [NODE...]                    nodes of ./setup.sh local (1, 2, ...), or all

For an update of memcached or of the daemon. The daemon first says that it leaves (its /health/ready answers 503, and
HAProxy turns to the other nodes), and ends; memcached is stopped by SIGUSR1, which leaves its pairs in /dev/shm, and takes
them up again 3 s later; the daemon starts. The node is back in some 5 to 10 s. Meanwhile its keys answer 503, all others
are served.

A node is restarted only while it, with --all and --local every node, is ready and the ring is not changing. Afterwards the
memory has to be the same (by its generation, and by the number of entries) and the node ready, or the script stops with
status 1, says what is wrong, and restarts no further node. What it has stopped it starts again, whatever happens.

The pairs are lost all the same if memcached is killed meanwhile, if the clock goes back, or if another --memory was set
(that is refused). Where memcached has no file in /dev/shm (--warm-restart no; too small a /dev/shm) the script refuses to
begin. To restart such a node, move it out of the ring first, or accept the loss: systemctl restart kvserver-memcached.

  --all IP:PORT    asks this node for the ring, and restarts all nodes of it and its standbys, through ssh
  --ssh COMMAND    instead of `ssh -o BatchMode=yes`; is given the node's IP and `sudo -n` and this script's installed path
  --config FILE    the node's configuration (/etc/kvserver/kvserver.json)
  --help
END
}

# The one service after the other; their units name SIGUSR1, the pauses and the limits.
stop_daemon() { systemctl stop kvserver.service; }
stop_memcached() { systemctl stop kvserver-memcached.service; }
start_memcached_again() { systemctl start kvserver-memcached.service && within 30 statistic "$socket" pid; }
start_daemon() { systemctl start kvserver.service; }

restart_this_node() {
    local node at memory settings file=()
    [ -e "$config" ] || die "there is no $config: no node was set up here"
    command -v systemctl >/dev/null || die "no systemd runs here; for the nodes of ./setup.sh local: --local"
    node=$(json_value node "$config")
    at=$(json_value listen "$config")
    at=${at:-$node}
    at=${at/#0.0.0.0:/127.0.0.1:}
    # (Its certificate is for the address by which it is known.)
    [ -z "$(authority)" ] || at=$node
    socket=$(json_value memcached "$config")
    socket=${socket:-/run/kvserver/memcached.sock}
    [ -w "$socket" ] || die "$socket can't be opened: this needs root, and a memcached that runs"
    settings=${config%/*}/memcached.env
    memory=$(sed -nE 's/^MEMORY=([0-9]+)$/\1/p' "$settings" 2>/dev/null | tail -n 1) || true
    # Without that line it is the unit's own, as ever.
    ! grep -qs '^MEMORY_FILE=' "$settings" || file=("$(sed -n 's/^MEMORY_FILE=//p' "$settings" | tail -n 1)")
    begin_restarts "systemctl start kvserver-memcached kvserver"
    restart_node "$node" "$at" "$socket" "$memory" ${file[@]+"${file[@]}"}
}

# known_nodes ADDRESS: every node of the ring that it has, and the standbys, a line each.
known_nodes() {
    local answer
    answer=$(http "http://$1/hash_ring") || return 1
    grep -oE '"([0-9]+\.){3}[0-9]+:[0-9]+"' <<<"$answer" | tr -d '"' | sort -u
}

restart_all() {
    local known node other
    known=$(known_nodes "$all") || die "$all names no nodes: curl http://$all/hash_ring"
    for node in $known; do
        for other in $known; do require_ready "$other" "$other"; done
        # shellcheck disable=SC2086 # words
        $ssh "${node%:*}" sudo -n /usr/lib/kvserver/restart-node.sh </dev/null ||
            die "the restart of $node failed (above); the nodes after it were left alone. Once that one is well, again"
        within 30 is_ready "$node" || die "$node does not answer from here; the nodes after it were left alone"
    done
    say "All nodes are restarted."
}

all='' ssh='ssh -o BatchMode=yes' config=/etc/kvserver/kvserver.json socket=''
while [ $# -gt 0 ]; do
    case $1 in
    --local) shift && exec "$HERE/../setup.sh" local restart "$@" ;;
    --all) needs_value "$@" && all=$2 && shift 2 ;;
    --ssh) needs_value "$@" && ssh=$2 && shift 2 ;;
    --config) needs_value "$@" && config=$2 && shift 2 ;;
    --help | -h) usage && exit 0 ;;
    *) misused "unknown argument: $1" ;;
    esac
done
command -v curl >/dev/null || die "curl is missing"
if [ -n "$all" ]; then
    is_endpoint "$all" || misused "--all takes ip:port of a node: $all"
    restart_all
else
    restart_this_node
fi
