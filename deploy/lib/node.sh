# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# ./setup.sh node: this machine becomes a node. To be sourced by setup.sh.
#
# Everything that is installed comes in one Debian package, whether it was built here or brought along, so that a node
# looks the same either way and dpkg knows what belongs to it. Only the configuration is written here.

node_usage() {
    cat <<'USAGE'
Usage: sudo ./setup.sh node --address IP:PORT [option...]

Makes this machine a node of the store: installs memcached and the daemon, writes /etc/kvserver, and starts both as
systemd services of an unprivileged user. It may be repeated: with other options it changes what they name, with a newer
package or checkout it replaces the daemon. memcached stays up meanwhile, and with it the pairs.

  --address IP:PORT   by which the other nodes and the balancer reach this node (needed the first time)
  --listen IP:PORT    the address to bind, where that is another one, as on a machine behind NAT: 0.0.0.0:5000
  --peer-port-offset N
                      the other nodes call this one at a port so much higher, which serves nothing else; 0 for one port
                      for them and for clients. The same on every node (the first time: 10000)
  --memory MIB        memory for the pairs, from 64 up (the first time: two fifths of the machine's)
  --warm-restart yes|no
                      whether the pairs lie in /dev/shm, so that they outlast a planned restart of memcached (yes); no is
                      for a machine whose /dev/shm is too small, such as many a container's
  --tokens DIR        take the tokens from the files admin, peer and data in DIR, which come from the cluster's first node.
                      Without it, those that are here stay, or are made; /etc/kvserver/tokens has them
  --certificates DIR  TLS, to clients and between nodes: take this node's certificate and key, named by its IP address, and
                      ca.pem from DIR, where deploy/make-certs.sh has put them. Again with new ones it replaces them. All
                      nodes of a cluster, or none
  --data-token        make a data token, too: clients need it from then on to read and write pairs
  --insecure          no tokens: whoever reaches the node may change the ring. It holds until this is run without it
  --workers N         worker processes, 1 to 256; 0 for one a core (the first time: one a core)
  --deb FILE          install this package; if FILE.sha256 is beside it, it has to match
  --root DIR          install into DIR and leave the machine itself alone: nothing is started, no user is made here.
                      Needs no root

The daemon comes from --deb; else from KVSERVER_BINARY; else it is built here, if there is a Swift toolchain; else from
the kvserver_*.deb in the checkout. Make a package on a bigger machine with deploy/package.sh: building takes 4 GiB.

No firewall is touched. The balancer has to reach IP:PORT, and the other nodes the same address at PORT + 10000 (see
--peer-port-offset); nobody else should: without a data token whoever reaches a node may read and write. memcached listens
on a unix socket only.

Environment: KVSERVER_BINARY=/path/to/KVServer   installs that instead of building, with the kvctl beside it
             KVCTL_BINARY=/path/to/kvctl         or this one
USAGE
}

setup_node() {
    local address='' listen='' memory='' workers='' warm='' deb='' root='' tokens='' data_token='' insecure='' offset='' certificates=''
    while [ $# -gt 0 ]; do
        case $1 in
        --address) needs_value "$@" && address=$2 && shift 2 ;;
        --listen) needs_value "$@" && listen=$2 && shift 2 ;;
        --peer-port-offset) needs_value "$@" && offset=$2 && shift 2 ;;
        --memory) needs_value "$@" && memory=$2 && shift 2 ;;
        --workers) needs_value "$@" && workers=$2 && shift 2 ;;
        --warm-restart) needs_value "$@" && warm=$2 && shift 2 ;;
        --tokens) needs_value "$@" && tokens=$2 && shift 2 ;;
        --certificates) needs_value "$@" && certificates=$2 && shift 2 ;;
        --data-token) data_token=yes && shift ;;
        --insecure) insecure=yes && shift ;;
        --deb) needs_value "$@" && deb=$2 && shift 2 ;;
        --root) needs_value "$@" && root=$2 && shift 2 ;;
        --help | -h) node_usage && return ;;
        *) misused "unknown argument: $1" ;;
        esac
    done
    local etc=$root/etc/kvserver
    local configuration=$etc/kvserver.json environment=$etc/memcached.env
    check_node_options
    command -v dpkg-deb >/dev/null || die "dpkg-deb is missing: a node needs Debian or Ubuntu"
    if [ -z "$root" ]; then
        [ "$(id -u)" = 0 ] || die "this needs root: sudo ./setup.sh node ..."
        [ -d /run/systemd/system ] || die "no systemd runs here. --root DIR installs into a directory without it;" \
            "./setup.sh local runs a cluster without it"
        check_machine
    fi

    find_package
    if [ -n "$root" ]; then unpack_into_root; else install_node_package; fi
    local changed='' renewed=''
    write_configuration
    write_tokens
    install_certificates
    if [ -n "$root" ]; then
        say "Installed in $root: ${deb##*/}, ${configuration#"$root"}, ${environment#"$root"}. Nothing was started."
    else
        start_node
    fi
}

check_node_options() {
    [ -z "$address" ] || is_endpoint "$address" || misused "--address takes ip:port, with an IPv4 address: $address"
    [[ $address != 0.0.0.0:* ]] || misused "--address is how others reach this node; 0.0.0.0 goes to --listen"
    [ -z "$listen" ] || is_endpoint "$listen" || misused "--listen takes ip:port, with an IPv4 address: $listen"
    check_peer_port
    [ -z "$memory" ] || is_number "$memory" 64 1000000 || misused "--memory takes MiB from 64 up: $memory"
    [ -z "$workers" ] || is_number "$workers" 0 256 || misused "--workers takes 0 to 256: $workers"
    [[ ${warm:-yes} =~ ^(yes|no)$ ]] || misused "--warm-restart takes yes or no: $warm"
    [ -n "$address" ] || [ -e "$configuration" ] ||
        misused "--address is missing: the ip:port by which the other nodes reach this one"
    [ -z "$deb" ] || [ -f "$deb" ] || die "there is no file $deb"
    if [ -n "$tokens" ]; then
        if [ ! -f "$tokens/admin" ] || [ ! -f "$tokens/peer" ]; then
            die "there are no files admin and peer in $tokens"
        fi
        local door
        for door in admin peer data; do
            [ ! -e "$tokens/$door" ] || is_token_file "$door" "$tokens/$door" ||
                die "$tokens/$door is no file of a token, or of two: each on a line, 32 to 256 letters and digits"
        done
    fi
    local file host=${address:-$(json_value node "$configuration")}
    host=${host%:*}
    if [ -n "$certificates" ]; then
        for file in ca.pem "$host.pem" "$host.key"; do
            [ -r "$certificates/$file" ] || die "there is no file $certificates/$file: see deploy/make-certs.sh --help"
        done
        [ "${offset:-$(json_value peerPortOffset "$configuration")}" != 0 ] ||
            misused "--certificates needs a port for the peers: --peer-port-offset"
        [ -z "$insecure" ] || misused "--certificates needs tokens as well: leave --insecure away"
    fi
    [ -z "$insecure" ] || [ -z "$tokens$data_token" ] || misused "--insecure makes no tokens"
}

# The peers' port has to be one, wherever this node is known or listens. Sets `offset` for a first configuration.
check_peer_port() {
    [ -z "$offset" ] || is_number "$offset" 0 65534 || misused "--peer-port-offset takes 0 to 65534: $offset"
    [ -n "$offset" ] || [ -e "$configuration" ] || offset=10000
    local place
    for place in ${address:+"$address"} ${listen:+"$listen"}; do
        [ $((${place##*:} + ${offset:-0})) -le 65535 ] ||
            misused "ports end at 65535, so nobody could call $place $offset above it: --peer-port-offset"
    done
}

# is_token_file DOOR FILE: whether the daemon will take it. Only the door to the pairs may be open.
is_token_file() {
    local lines
    [ -f "$2" ] && [ "$(wc -c <"$2")" -le 4096 ] || return 1
    lines=$(LC_ALL=C sed 's/^[[:blank:]\r]*//; s/[[:blank:]\r]*$//; /^$/d; /^#/d' "$2" | tr '\0' '?')
    if [ "$1" = data ] && [ "$lines" = none ]; then return; fi
    [ -n "$lines" ] && [ "$(wc -l <<<"$lines")" -le 2 ] &&
        ! LC_ALL=C grep -qavE '^[A-Za-z0-9._~+/=-]{32,256}$' <<<"$lines"
}

# What would make the services fail, told before anything is installed.
check_machine() {
    local bound=${listen:-$(json_value listen "$configuration")} room wanted=$memory owner
    bound=${bound:-${address:-$(json_value node "$configuration")}}
    if [[ $bound != 0.0.0.0:* ]] && command -v ip >/dev/null &&
        ! ip -4 -o address show | grep -qF " ${bound%:*}/" && [[ $bound != 127.* ]]; then
        die "${bound%:*} is no address of this machine; if others reach it by that one, add --listen 0.0.0.0:${bound##*:}"
    fi
    if ! systemctl --quiet is-active kvserver.service && owner=$(listener_of "$bound"); then
        die "$bound is taken by $owner"
    fi
    # memcached keeps the pairs in /dev/shm, so that they survive its restart.
    [ -n "$wanted" ] || [ -e "$environment" ] || wanted=$(fitting_memory)
    if [ "${warm:-no}" = no ] && { [ -n "$warm" ] || grep -qsx 'MEMORY_FILE=' "$environment"; }; then return; fi
    room=$(df --output=size -B 1M /dev/shm | tail -n 1)
    if [ -n "$wanted" ] && [ "$room" -lt "$wanted" ]; then
        die "/dev/shm has $((room)) MiB; for $wanted MiB of pairs, make it larger first:" \
            "mount -o remount,size=$((wanted + 64))M /dev/shm (and in /etc/fstab); or keep them elsewhere, where no" \
            "restart of memcached leaves them: --warm-restart no"
    fi
}

# --- the package ---

# Sets `deb` to the package's file, made here if need be.
find_package() {
    local found=()
    if [ -n "$deb" ]; then
        verify_package "$deb"
    elif [ -n "${KVSERVER_BINARY:-}" ]; then
        make_package
    elif as_invoker sh -c 'command -v swift' >/dev/null 2>&1; then
        require_build_packages
        make_package
    else
        shopt -s nullglob
        found=("$HERE"/kvserver_*_"$(dpkg --print-architecture)".deb)
        shopt -u nullglob
        [ ${#found[@]} = 1 ] || die "there is no Swift toolchain here, and ${#found[@]} packages in $HERE." \
            "Make one on a machine that has one with deploy/package.sh, bring it here, and name it: --deb FILE"
        deb=${found[0]}
        verify_package "$deb"
    fi
    deb=$(realpath "$deb")
    [ "$(dpkg-deb --field "$deb" Package 2>/dev/null)" = kvserver ] || die "$deb is no package of the daemon"
    local architecture
    architecture=$(dpkg-deb --field "$deb" Architecture)
    [ "$architecture" = "$(dpkg --print-architecture)" ] || die "$deb is for $architecture, and this machine is not"
}

# as_invoker COMMAND...: as the user who called sudo, in a login shell, for sudo's own PATH has no Swift toolchain; and
# what is built here should belong to that user.
as_invoker() {
    if [ "$(id -u)" = 0 ] && [ "${SUDO_USER:-root}" != root ]; then
        # shellcheck disable=SC2016 # expanded by the inner shell
        sudo -H -u "$SUDO_USER" env ${KVSERVER_BINARY:+"KVSERVER_BINARY=$KVSERVER_BINARY"} ${KVCTL_BINARY:+"KVCTL_BINARY=$KVCTL_BINARY"} bash -lc 'exec "$@"' bash "$@"
    else
        "$@"
    fi
}

require_build_packages() {
    local missing=()
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    pkg-config --exists libmemcached 2>/dev/null || missing+=(libmemcached-dev)
    [ ${#missing[@]} = 0 ] || [ -z "$root" ] || die "building needs these packages: ${missing[*]}"
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

make_package() {
    set -o pipefail
    deb=$(as_invoker "$HERE/deploy/package.sh" --output "$HERE/.build-package" | tee /dev/stderr | tail -n 1) ||
        die "the package could not be made"
    set +o pipefail
}

daemon_in_package() {
    dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/bin/KVServer | sha256sum
}

# Leaves alone what is installed already. (A version alone does not tell: two builds of one commit have the same.)
install_node_package() {
    if [ "$(dpkg-query -W -f '${Status} ${Version}' kvserver 2>/dev/null)" = \
        "install ok installed $(dpkg-deb --field "$deb" Version)" ] &&
        [ "$(sha256sum </usr/bin/KVServer)" = "$(daemon_in_package)" ]; then
        say "The daemon of ${deb##*/} is installed."
        return
    fi
    local also=() program
    for program in curl:curl ss:iproute2; do
        command -v "${program%:*}" >/dev/null || also+=("${program#*:}")
    done
    [ ${#also[@]} = 0 ] || install_packages "${also[@]}"
    install_packages --reinstall --allow-downgrades "$deb"
}

unpack_into_root() {
    mkdir -p "$root"
    # (By tar, because `dpkg-deb --extract` would replace a /lib that is a link.)
    dpkg-deb --fsys-tarfile "$deb" | tar -x -p --keep-directory-symlink -C "$root"
    if command -v systemctl >/dev/null; then
        systemctl --quiet --root="$(realpath "$root")" enable kvserver-memcached.service kvserver.service
    fi
}

# --- the configuration ---

# Changes what the options name and keeps the rest, whoever wrote it. Sets `changed` if the daemon has to start anew.
write_configuration() {
    mkdir -p "$etc"
    chmod 755 "$etc"
    if [ -e "$configuration" ]; then
        local known
        known=$(json_value node "$configuration")
        if [ -n "$address" ] && [ -n "$known" ] && [ "$address" != "$known" ]; then
            say "This node was $known and becomes $address. If a ring has it as $known, remove it there first."
        fi
        [ -z "$address" ] || set_json node "\"$address\""
    else
        write_file "$configuration" <<END
{
  "node": "$address"
}
END
        changed=yes
    fi
    [ -z "$offset" ] || set_json peerPortOffset "$offset"
    [ -z "$listen" ] || set_json listen "\"$listen\""
    case $workers in
    '') ;;
    0) write_file "$configuration" < <(unset_json workers) ;;
    *) set_json workers "$workers" ;;
    esac

    if [ ! -e "$environment" ]; then
        write_file "$environment" <<END
# What memcached is started with (see kvserver-memcached.service). When anything here has been changed, memcached starts
# empty the next time: move the node out of the ring first.
MEMORY=${memory:-$(fitting_memory)}
THREADS=4
CONNECTIONS=1024
END
    elif [ -n "$memory" ] && ! grep -qx "MEMORY=$memory" "$environment"; then
        write_file "$environment" < <(sed '/^MEMORY=/d' "$environment" && printf 'MEMORY=%s\n' "$memory")
        say "memcached gets $memory MiB when it is next started, and starts empty then. Move the node out of the ring" \
            "first, and then: systemctl restart kvserver-memcached"
    fi
    # Without that line, the unit's own default holds.
    if [ "$warm" = no ] && ! grep -qx 'MEMORY_FILE=' "$environment"; then
        write_file "$environment" < <(sed '/^MEMORY_FILE=/d' "$environment" && echo 'MEMORY_FILE=')
    elif [ "$warm" = yes ] && grep -q '^MEMORY_FILE=' "$environment"; then
        write_file "$environment" < <(sed '/^MEMORY_FILE=/d' "$environment")
    fi
}

# The tokens, for root alone; systemd hands them to the daemon. Every node of a cluster has the same.
write_tokens() {
    local directory=$etc/tokens door made=''
    if [ -n "$insecure" ]; then
        set_json insecure true
        return
    fi
    if [ "$(json_value insecure "$configuration")" = true ]; then
        set_json insecure false
        say "This node was insecure and is so no longer: it calls, and lets in, only nodes that have the same peer token."
    fi
    mkdir -p "$directory"
    chmod 700 "$directory"
    for door in admin peer data; do
        if [ -n "$tokens" ] && [ -f "$tokens/$door" ]; then
            write_token "$door" <"$tokens/$door"
        elif [ "$door" = data ] && [ -z "$data_token" ]; then
            [ -e "$directory/data" ] || write_token data <<<none
        elif [ ! -e "$directory/$door" ] || { [ "$door" = data ] && grep -qx none "$directory/data"; }; then
            write_token "$door" < <(od -An -N32 -tx1 /dev/urandom | tr -d ' \n' && echo)
            made+="${made:+ and }$door"
        fi
    done
    [ -n "$made" ] || return 0
    say "Made the token for $made in $directory. All nodes of a cluster, and whoever changes its ring, need the same: bring" \
        "the directory to the others, and set them up with --tokens DIRECTORY."
}

# write_token DOOR: standard input becomes its file.
write_token() {
    local file=$directory/$1
    (umask 077 && cat >"$file.new")
    chmod 400 "$file.new"
    if cmp -s "$file.new" "$file"; then
        rm -f "$file.new"
        return
    fi
    mv -f "$file.new" "$file"
    changed=yes
}

# The certificate, for anybody; its key for the daemon alone; and what the configuration says of them. Files, rather than
# systemd's credentials, are read again at each reload, so that new ones cost no restart.
install_certificates() {
    [ -n "$certificates" ] || return 0
    local host directory=$etc/tls file mode
    host=$(json_value node "$configuration")
    host=${host%:*}
    mkdir -p "$directory"
    chmod 755 "$directory"
    for file in ca.pem node.pem node.key; do
        mode=644
        [ "$file" != node.key ] || mode=400
        (umask 077 && cat "$certificates/${file/node/$host}" >"$directory/$file.new")
        chmod "$mode" "$directory/$file.new"
        if [ "$file" = node.key ]; then
            if [ "$(id -u)" = 0 ] && id kvserver >/dev/null 2>&1; then
                chown kvserver: "$directory/$file.new"
            else
                say "There is no user kvserver here yet: once there is, chown kvserver: /etc/kvserver/tls/node.key"
            fi
        fi
        cmp -s "$directory/$file.new" "$directory/$file" || renewed=yes
    done
    # (All at once, as far as files go: a reload in between would find a key that is not the certificate's, and keep what it had.)
    for file in ca.pem node.pem node.key; do mv -f "$directory/$file.new" "$directory/$file"; done
    for file in tlsCertificateFile:node.pem tlsKeyFile:node.key peerCertificateFile:node.pem peerKeyFile:node.key peerAuthorityFile:ca.pem; do
        set_json "${file%:*}" "\"/etc/kvserver/tls/${file#*:}\""
    done
}

# Two fifths of the machine's memory in MiB. (A tmpfs, where the pairs lie, is half of it by default.)
fitting_memory() {
    local mib
    mib=$(awk '$1 == "MemTotal:" { print int($2 / 1024 * 2 / 5) }' /proc/meminfo)
    [ "$mib" -ge 64 ] || mib=64
    printf '%s' "$mib"
}

# write_file FILE: standard input becomes its content, at once; if that is a change, it is said.
write_file() {
    local new=$1.new
    cat >"$new"
    [ -s "$new" ] || die "could not write $1; it stays as it is"
    chmod 644 "$new"
    if cmp -s "$new" "$1"; then
        rm "$new"
        return
    fi
    mv "$new" "$1"
    [ "$1" != "$configuration" ] || changed=yes
    say "Wrote $1."
}

# The configuration is one flat JSON object. set_json KEY JSON: in place, or as the first member.
set_json() {
    local value='("([^"\\]|\\.)*"|[^],}[:space:]]+)'
    if grep -qE "\"$1\"[[:space:]]*:" "$configuration"; then
        write_file "$configuration" < <(sed -E "s#(\"$1\"[[:space:]]*:[[:space:]]*)$value#\1$2#" "$configuration")
    else
        write_file "$configuration" < <(sed "0,/{/s|{|{\n  \"$1\": $2,|" "$configuration")
    fi
}

# unset_json KEY: the configuration without this number. (It is never the only member, so one comma goes with it.)
unset_json() {
    local member="\"$1\"[[:space:]]*:[[:space:]]*[0-9]+"
    sed -zE "s/[[:space:]]*${member}[[:space:]]*,//; s/,[[:space:]]*${member}//" "$configuration"
}

# --- starting ---

start_node() {
    local unit verb node at
    systemctl --quiet enable kvserver-memcached.service kvserver.service
    # memcached is never restarted here: that is for whoever knows what becomes of the pairs.
    for unit in kvserver-memcached.service kvserver.service; do
        verb=start
        if [ "$unit" = kvserver.service ]; then
            if [ -n "$changed" ]; then verb=restart; elif [ -n "$renewed" ]; then verb=reload-or-restart; fi
        fi
        systemctl "$verb" "$unit" || node_failed "$unit does not start" "$unit"
    done
    node=$(json_value node "$configuration")
    at=$(json_value listen "$configuration")
    at=${at:-$node}
    at=${at/#0.0.0.0:/127.0.0.1:}
    # (By whatever address it listens, its certificate is for the one by which it is known.)
    within 30 http --connect-to "::$at" "http://$node/health/live" || node_failed "the node does not answer at $at" kvserver.service
    say "The node $node runs: systemctl status kvserver, journalctl -u kvserver."
    if http --connect-to "::$at" "http://$node/hash_ring" 2>/dev/null | grep -qE '"epoch":[1-9]'; then
        say "It has a ring: curl http://$at/hash_ring"
        return
    fi
    cat <<END

It is in no ring yet. Once all nodes of a new cluster run, give them one, with a position (0 to 9999) for each:
  /usr/lib/kvserver/reconfigure.sh $node=3000 OTHER-IP:PORT=8000
Or let it join a cluster, at a position that is free there; the pairs move while the cluster serves:
  kvctl ring add --node ANY-NODE-OF-IT $node
And on another machine, in front of all nodes:
  sudo ./setup.sh balancer --node $node --node OTHER-IP:PORT
END
}

node_failed() {
    journalctl --no-pager --lines 20 --unit "$2" >&2 || true
    die "$1; above is the end of its log"
}
