#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Gives every node the same ring. Edit the lists below and run it, or pass the nodes as arguments.
set -eu

# Each node that owns a part of the ring, as ip:port=position (0 to 9999), one a line; a node may have several positions.
NODES='
127.0.0.11:5000=3000
127.0.0.12:5000=8000
'
# Nodes in no position that are to know the ring, too: ready to be added, and able to answer any request meanwhile.
STANDBYS='
127.0.0.13:5000
'

usage() {
    cat <<'END'
Usage: deploy/reconfigure.sh [--clear] [--replicas N] [--standby ip:port]... [ip:port=position...]

Installs one ring on every node. Without nodes as arguments, it takes those in the lists at the top of the file.
It says for each node how that went, and fails if it went wrong with one; running it again then heals the rest.

It moves no pairs: a pair that the new ring gives to another node is not found any more. To move a node in or out of a
cluster that holds pairs, use /add_node and /remove_node.

  --clear              drop all pairs of each node
  --replicas N         how many nodes hold each pair, 1 to 9 (3); as many as there are nodes where they are fewer
  --standby ip:port    a node in no position that is to know the ring
  --token-file FILE    the nodes' admin token, where they have one (KVCTL_TOKEN_FILE, ~/.config/kvctl/token,
                       /etc/kvserver/tokens/admin)
  --ca FILE            speak TLS to the nodes, whose certificates the authority in FILE has signed (KVCTL_CA)
  --seconds N          how long a node may take to answer (10; to drop its pairs: 60 times that)
  --help
END
}

misused() {
    printf 'reconfigure.sh: %s\n' "$*" >&2
    exit 64
}

is_endpoint() {
    local byte='(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])'
    [[ $1 =~ ^$byte\.$byte\.$byte\.$byte:([1-9][0-9]{0,4})$ ]] && [ "${1##*:}" -le 65535 ]
}

clear='' seconds=10 replicas=3 nodes=() standbys=()
while [ $# -gt 0 ]; do
    case $1 in
    --clear) clear=yes && shift ;;
    --standby) standbys+=("${2?--standby needs ip:port}") && shift 2 ;;
    --replicas) replicas=${2?--replicas needs a number} && shift 2 ;;
    --token-file) export KVCTL_TOKEN_FILE=${2?--token-file needs a file} && shift 2 ;;
    --ca) export KVCTL_CA=${2?--ca needs a file} && shift 2 ;;
    --seconds) seconds=${2?--seconds needs a number} && shift 2 ;;
    --help | -h) usage && exit 0 ;;
    -*) misused "unknown option: $1 (--help explains)" ;;
    *) nodes+=("$1") && shift ;;
    esac
done
[[ $seconds =~ ^[1-9][0-9]{0,3}$ ]] || misused "no number of seconds: $seconds"
if [ ${#nodes[@]} = 0 ]; then
    read -r -d '' -a nodes <<<"$NODES" || true
    [ ${#standbys[@]} != 0 ] || read -r -d '' -a standbys <<<"$STANDBYS" || true
fi
[ -z "${KVCTL_TOKEN_FILE:-}" ] || [ -r "$KVCTL_TOKEN_FILE" ] || misused "no token can be read from $KVCTL_TOKEN_FILE"
[ -z "${KVCTL_CA:-}" ] || [ -r "$KVCTL_CA" ] || misused "no authority can be read from $KVCTL_CA"
scheme=http${KVCTL_CA:+s}
[[ $replicas =~ ^[1-9]$ ]] || misused "--replicas takes 1 to 9: $replicas"
[ ${#nodes[@]} != 0 ] || misused "no nodes given"
command -v curl >/dev/null || { echo "reconfigure.sh: curl is missing" >&2 && exit 1; }

# Everything is checked before anything is sent. The document, and each node once, positions' owners first:
members='' places='' others='' ring=' '
everyone=()
for node in "${nodes[@]}"; do
    address=${node%%=*} position=${node#*=}
    is_endpoint "$address" || misused "not an ip:port=position: $node"
    [[ $node == *=* && $position =~ ^(0|[1-9][0-9]{0,3})$ ]] || misused "no position from 0 to 9999: $node"
    [[ $ring != *" $position="* ]] || misused "two nodes at position $position"
    ring+="$position=$address "
    places+=${places:+,}"{\"ip\":\"$address\",\"key\":$position}"
    if [[ " $members " != *" $address "* ]]; then members+=" $address" && everyone+=("$address"); fi
done
for address in ${standbys[@]+"${standbys[@]}"}; do
    is_endpoint "$address" || misused "not an ip:port: $address"
    [[ " $members " != *" $address "* ]] || misused "a standby in a position: $address"
    others+=${others:+,}\"$address\"
    everyone+=("$address")
done
document="{\"nodes\":[$places]${others:+,\"standbys\":[$others]},\"replicas\":$replicas}"

# authorization NUMBER: the first or second token that is there, as curl reads it by --config. (No program has it among
# its arguments.)
authorization() {
    local file token
    for file in "${KVCTL_TOKEN_FILE:-}" "${XDG_CONFIG_HOME:-${HOME:-/root}/.config}/kvctl/token" /etc/kvserver/tokens/admin; do
        [ -r "$file" ] || continue
        token=$(sed '/^[[:space:]]*\(#.*\)*$/d; s/[[:space:]]//g' "$file" | sed -n "$1p")
        [ -z "$token" ] || [ "$token" = none ] || printf 'header = "Authorization: Bearer %s"\n' "$token"
        return 0
    done
}

# request SECONDS CURL-ARGUMENTS...: sets `answer` to the body or to why there is none; fails unless the status is 200.
request() {
    local limit=$1 status number
    shift
    # (While a token is being changed, a node may know the newer one alone, or the older one.)
    for number in 1 2; do
        answer=$(curl --config <(authorization $number) --noproxy '*' --silent --show-error --connect-timeout 3 --max-time "$limit" \
            ${KVCTL_CA:+--cacert "$KVCTL_CA"} --write-out '\n%{http_code}' "$@" 2>&1) || { answer=$(sed '/^000$/d;/^$/d' <<<"$answer") && return 1; }
        status=${answer##*$'\n'} answer=${answer%$'\n'*}
        if [ "$status" != 401 ] || [ -z "$(authorization 2)" ]; then break; fi
    done
    [ "$status" = 200 ] || { answer="$status $answer" && return 1; }
}

# positions_of JSON: the ring in an answer of GET /hash_ring, as "position=ip:port" lines in order.
positions_of() {
    grep -oE '"[0-9]+" *: *"[0-9.:]+"' <<<"$1" | tr -d '" ' | sed 's/:/=/' | sort
}

wanted=$(tr ' ' '\n' <<<"$ring" | sed '/^$/d' | sort)
failed=0 told=()
report() {
    printf '%-22s %s\n' "$1" "$2"
}
for address in "${everyone[@]}"; do
    if ! request "$seconds" --data-urlencode "data=$document" "$scheme://$address/hash_ring"; then
        report "$address" "FAILED, no new ring: $answer"
        failed=$((failed + 1))
        continue
    fi
    if [ -n "$clear" ] && ! request $((seconds * 60)) --data '' "$scheme://$address/clear_cache"; then
        report "$address" "FAILED, has the ring but may hold pairs still: $answer"
        failed=$((failed + 1))
        continue
    fi
    report "$address" "has the ring${clear:+, dropped its pairs}"
    told+=("$address")
done
# Once more when all are through: a node that was told first may have been told otherwise since.
for address in ${told[@]+"${told[@]}"}; do
    if ! request "$seconds" "$scheme://$address/hash_ring" || [ "$(positions_of "$answer")" != "$wanted" ]; then
        report "$address" "FAILED, has not kept the ring: $answer"
        failed=$((failed + 1))
    fi
done
[ "$failed" = 0 ] || { echo "$failed failed; running this again is safe." >&2 && exit 1; }
