# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# ./setup.sh balancer: this machine becomes the balancer. To be sourced by setup.sh.

balancer_usage() {
    cat <<'END'
Usage: sudo ./setup.sh balancer --node IP:PORT... [option...]

Installs HAProxy and puts it in front of these nodes: /etc/haproxy/haproxy.cfg is made of the checkout's haproxy.cfg. A
configuration of somebody else's is kept beside it as haproxy.cfg.before-kvserver. It may be repeated, with all the nodes
that there are by then: HAProxy takes up the new ones without dropping a request.

  --node IP:PORT         a node; once for each. Standbys belong here, too: they answer any request
  --bind IP:PORT         where clients come in (0.0.0.0:5000)
  --statistics IP:PORT   where the statistics are shown, to whoever can reach that (127.0.0.1:8404)
  --connections N        the most connections of clients, 100 to 500000 (20000, or as many as memory and descriptors allow)
  --deb FILE             take kvctl from this package of the daemon: it tells HAProxy who holds which keys, and of nodes
                         that come and go (KVCTL_BINARY, or what is installed). Without it nodes are asked in turn. If
                         FILE.sha256 is beside it, it has to match
  --tls-certificate FILE TLS for clients: a certificate chain and its key in one file of PEM (deploy/make-certs.sh --server)
  --node-authority FILE  the nodes speak TLS, and are who they say if the authority in FILE has signed that
  --data-token FILE      the nodes' data token, where they have one, for kvctl
  --root DIR             install into DIR and leave the machine itself alone; nothing is started. Needs no root
END
}

setup_balancer() {
    local nodes=() bind=0.0.0.0:5000 statistics=127.0.0.1:8404 connections='' deb='' root='' data_token='' certificate='' node_authority='' node
    while [ $# -gt 0 ]; do
        case $1 in
        --node) needs_value "$@" && nodes+=("$2") && shift 2 ;;
        --bind) needs_value "$@" && bind=$2 && shift 2 ;;
        --statistics) needs_value "$@" && statistics=$2 && shift 2 ;;
        --connections) needs_value "$@" && connections=$2 && shift 2 ;;
        --tls-certificate) needs_value "$@" && certificate=$2 && shift 2 ;;
        --node-authority) needs_value "$@" && node_authority=$2 && shift 2 ;;
        --data-token) needs_value "$@" && data_token=$2 && shift 2 ;;
        --deb) needs_value "$@" && deb=$2 && shift 2 ;;
        --root) needs_value "$@" && root=$2 && shift 2 ;;
        --help | -h) balancer_usage && return ;;
        *) misused "unknown argument: $1" ;;
        esac
    done
    check_balancer_options
    if [ -z "$root" ]; then
        [ "$(id -u)" = 0 ] || die "this needs root: sudo ./setup.sh balancer ..."
        [ -d /run/systemd/system ] || die "no systemd runs here. --root DIR installs into a directory without it"
        if ! command -v haproxy >/dev/null || ! command -v curl >/dev/null || ! command -v ss >/dev/null; then
            install_packages haproxy curl iproute2
        fi
    fi
    local configuration=$root/etc/haproxy/haproxy.cfg changed=''
    write_balancer
    install_sync
    if [ -n "$root" ]; then say "Installed in $root. Nothing was started."; else start_balancer; fi
}

check_balancer_options() {
    [ ${#nodes[@]} != 0 ] || misused "no nodes given: --node ip:port, once for each"
    local node seen=' '
    for node in "${nodes[@]}"; do
        if ! is_endpoint "$node" || [[ $node == 0.0.0.0:* ]]; then
            misused "--node takes ip:port, with an IPv4 address: $node"
        fi
        [[ $seen != *" $node "* ]] || misused "a node twice: $node"
        [ "$node" != "$bind" ] || misused "a node where clients come in: $node (--bind puts that elsewhere)"
        seen+="$node "
    done
    is_endpoint "$bind" || misused "--bind takes ip:port, with an IPv4 address: $bind"
    is_endpoint "$statistics" || misused "--statistics takes ip:port, with an IPv4 address: $statistics"
    [ -z "$deb" ] || [ -f "$deb" ] || die "there is no file $deb"
    [ -z "$certificate" ] || [ -f "$certificate" ] || die "there is no file $certificate"
    [ -z "$node_authority" ] || [ -f "$node_authority" ] || die "there is no file $node_authority"
    [ -z "$data_token" ] || [ -f "$data_token" ] || die "there is no file $data_token"
    [ -z "$connections" ] || is_number "$connections" 100 500000 ||
        misused "--connections takes 100 to 500000: $connections"
}

# haproxy.cfg for this machine, on standard output.
node_balancer() {
    local servers='' secured='' shown='' index
    [ -z "$certificate" ] || shown=" ssl crt $place/kvserver.pem ssl-min-ver TLSv1.2 alpn http/1.1"
    for ((index = 0; index < ${#nodes[@]}; index++)); do
        # (HAProxy compares the name with the certificate's common name: it looks at no addresses among the other names.)
        [ -z "$node_authority" ] || secured=" ssl verify required verifyhost ${nodes[index]%:*} ca-file $place/kvserver-authority.pem ssl-min-ver TLSv1.2"
        servers+="${servers:+$'\n'}    server node$((index + 1)) ${nodes[index]}$secured"
    done
    # shellcheck disable=SC2016 # a command, to be read
    printf '# Written by `setup.sh balancer`, which replaces it when it is run again.\n'
    render_balancer "$bind$shown" "$statistics" "    maxconn ${connections:-$(fitting_connections)}
    # Once it has started, HAProxy is nobody in particular, in a directory with nothing in it.
    user haproxy
    group haproxy
    chroot /var/lib/haproxy
    # For \`kvctl haproxy sync\`.
    stats socket unix@/run/haproxy/admin.sock user root group haproxy mode 660 level admin" "$servers" "$map"
}

# A connection may take two buffers of 16 KiB here, and as much in the kernel; and two descriptors, of which even root may
# have no more than it is let, as in many a container.
fitting_connections() {
    awk -v descriptors="$(ulimit -H -n)" '$1 == "MemTotal:" {
        most = int($2 / 2 / 64)
        if (most > 20000) most = 20000
        if (descriptors != "unlimited" && most > int((descriptors - 100) / 2)) most = int((descriptors - 100) / 2)
        print most
    }' /proc/meminfo
}

# Writes the configuration if it is another one than there is. Sets `changed` then.
write_balancer() {
    local new=$configuration.new map=/etc/haproxy/ring.map place=/etc/haproxy
    mkdir -p "${configuration%/*}"
    # (Where it is installed elsewhere, HAProxy would look for it here.)
    [ -z "$root" ] || map=$(realpath -m "$root$map") place=$(realpath -m "$root$place")
    # (HAProxy reads both before it becomes nobody in particular.)
    [ -z "$certificate" ] || install_file 600 "$certificate" "$root/etc/haproxy/kvserver.pem"
    [ -z "$node_authority" ] || install_file 644 "$node_authority" "$root/etc/haproxy/kvserver-authority.pem"
    empty_map "$root/etc/haproxy/ring.map"
    node_balancer >"$new"
    chmod 644 "$new"
    if command -v haproxy >/dev/null; then
        haproxy -c -q -f "$new" || die "HAProxy refuses $new, so $configuration stays as it is"
    fi
    if cmp -s "$new" "$configuration"; then
        rm "$new"
        [ -z "$changed" ] || return 0
        say "$configuration is as it should be."
        return
    fi
    # shellcheck disable=SC2016 # no command either
    if [ -e "$configuration" ] && ! head -n 1 "$configuration" | grep -qF '`setup.sh balancer`'; then
        # (Numbered, should this happen a second time.)
        cp --preserve --backup=numbered "$configuration" "$configuration.before-kvserver"
        say "Kept the configuration that was there as $configuration.before-kvserver."
    fi
    mv "$new" "$configuration"
    changed=yes
    say "Wrote $configuration."
}

# install_file MODE FROM TO: sets `changed` if that is another file than there was.
install_file() {
    cmp -s "$2" "$3" || changed=yes
    install -m "$1" "$2" "$3"
}

# kvctl, its unit, and whom it asks for the ring. Sets `sync` where it is there.
install_sync() {
    local control=$root/usr/bin/kvctl unit=$root/lib/systemd/system/kvctl-haproxy-sync.service environment
    sync=''
    mkdir -p "${control%/*}" "${unit%/*}" "$root/etc/kvserver"
    if [ -n "$deb" ]; then
        verify_package "$deb"
        dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/bin/kvctl >"$control.new" || die "there is no kvctl in $deb"
        chmod 755 "$control.new"
        mv "$control.new" "$control"
    elif [ -n "${KVCTL_BINARY:-}" ]; then
        install -m 755 "$KVCTL_BINARY" "$control"
    elif [ ! -x "$control" ]; then
        say "There is no kvctl here, so HAProxy asks the nodes in turn: see --deb."
        return 0
    fi
    install -m 644 "$HERE/deploy/units/kvctl-haproxy-sync.service" "$unit"
    environment=$(IFS=, && printf 'KVCTL_NODE=%s' "${nodes[*]}")
    if [ -n "$node_authority" ]; then
        environment+=$'\n'KVCTL_CA=/etc/haproxy/kvserver-authority.pem$'\n'KVCTL_SERVER_CA=/etc/haproxy/kvserver-authority.pem
    fi
    printf '%s\n' "$environment" >"$root/etc/kvserver/balancer.env"
    if [ -n "$data_token" ]; then
        mkdir -p "$root/etc/kvserver/tokens"
        chmod 700 "$root/etc/kvserver/tokens"
        install -m 400 "$data_token" "$root/etc/kvserver/tokens/data"
    fi
    sync=yes
    if [ -n "$root" ] && command -v systemctl >/dev/null; then
        systemctl --quiet --root="$(realpath "$root")" enable kvctl-haproxy-sync.service
    fi
}

start_balancer() {
    local at=${bind/#0.0.0.0:/127.0.0.1:} owner scheme=http
    [ -z "$certificate" ] || scheme=https
    systemctl --quiet enable haproxy.service
    if ! systemctl --quiet is-active haproxy.service; then
        if owner=$(listener_of "$bind"); then die "$bind is taken by $owner"; fi
        systemctl start haproxy.service || balancer_failed "HAProxy does not start"
    elif [ -n "$changed" ]; then
        systemctl reload haproxy.service || balancer_failed "HAProxy did not take up the configuration"
    fi
    if [ -n "$sync" ]; then
        systemctl daemon-reload
        systemctl --quiet enable kvctl-haproxy-sync.service
        # It may be another program, or ask other nodes, than before.
        systemctl restart kvctl-haproxy-sync.service || balancer_failed "kvctl-haproxy-sync does not start"
    fi
    # Any answer will do: its nodes may not run yet.
    # (Whether its certificate is good for clients can't be told here: they know it by its name.)
    within 10 curl --noproxy '*' --silent --insecure --max-time 3 "$scheme://$at/" ||
        balancer_failed "HAProxy does not answer at $at"
    if within 5 curl --noproxy '*' --silent --fail --insecure --max-time 3 "$scheme://$at/"; then
        say "The balancer runs. Try: curl $scheme://$at/hash_ring"
        say "Statistics: http://${statistics/#0.0.0.0:/127.0.0.1:}/"
    else
        say "The balancer runs, but none of its nodes is ready: set them up by \`./setup.sh node\`, and give them a ring."
    fi
}

balancer_failed() {
    journalctl --no-pager --lines 20 --unit haproxy.service >&2 || true
    die "$1; above is the end of its log"
}
