// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Control
private import Glibc
internal import HashRing

struct HAProxyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "haproxy", abstract: "Keeps HAProxy as the ring is.", subcommands: [HAProxySync.self])
}

/// Keeps the map from slots to servers, and the servers, current by HAProxy's admin socket; nothing is reloaded.
struct HAProxySync: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sync", abstract: "Tells HAProxy who holds which slot, and of nodes that come and go.",
        discussion: """
            HAProxy then sends each request to a node that holds its key. Without this, or with what it knew earlier, \
            requests find their way all the same, by one hop more.
            """)

    @Option(help: ArgumentHelp("HAProxy's admin socket.", valueName: "path"))
    var socket = "/run/haproxy/admin.sock"

    @Option(help: ArgumentHelp("The backend that the nodes are servers of.", valueName: "name"))
    var backend = "nodes"

    @Option(
        help: ArgumentHelp("The map, as HAProxy's configuration names it (the one called ring.map).", valueName: "path")
    )
    var map: String?

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp(
            "Nodes to learn the ring from, once for each (KVCTL_NODE, with commas between them).", valueName: "ip:port")
    )
    var node: [NodeID] = []

    @Flag(help: "Go on, and follow the ring.")
    var watch = false

    @Option(help: ArgumentHelp("With --watch: how often to look.", valueName: "seconds"))
    var interval = 1.0

    @Option(help: ArgumentHelp("How long a server that leaves may go on with what it has begun.", valueName: "seconds"))
    var drain = 30.0

    @Option(help: ArgumentHelp("How long a node may take to answer.", valueName: "seconds"))
    var timeout = 2.0

    @Option(
        help: ArgumentHelp(
            "A file of the nodes' data token (KVCTL_TOKEN_FILE, systemd's credential token).", valueName: "file"))
    var tokenFile: String?

    @Option(
        help: ArgumentHelp(
            "Speak TLS, to nodes whose certificates the authority in this file has signed (KVCTL_CA).",
            valueName: "file"))
    var ca: String?

    @Option(
        help: ArgumentHelp(
            "Have HAProxy speak TLS to an added server, by the authority's file that its configuration names for the others (KVCTL_SERVER_CA).",
            valueName: "file"))
    var serverCa: String?

    @Option(help: ArgumentHelp("What an added server is given, as in HAProxy's configuration.", valueName: "words"))
    var serverOptions = HAProxySync.usualServerOptions

    /// As `default-server` in haproxy.cfg, which HAProxy does not apply to what is added at run time.
    static let usualServerOptions =
        "check inter 500ms fastinter 250ms downinter 500ms fall 2 rise 1 pool-purge-delay 500ms"

    private var serverAuthority: String? {
        (serverCa ?? getenv("KVCTL_SERVER_CA").map { String(cString: $0) }).flatMap { $0.isEmpty ? nil : $0 }
    }

    /// Empty where one of those that are named is none.
    private var nodes: [NodeID] {
        guard node.isEmpty else { return node }
        let named = getenv("KVCTL_NODE").map { String(cString: $0) } ?? CommonOptions.usualNode
        let words = named.split { $0 == "," || $0 == " " }
        let nodes = words.compactMap { NodeID($0) }
        return nodes.count == words.count ? nodes : []
    }

    func validate() throws {
        guard !nodes.isEmpty else {
            throw ValidationError("--node, or KVCTL_NODE, names nodes as literal ip:port, such as 10.0.0.5:5000.")
        }
        guard interval >= 0.05, interval <= 3600, drain >= 0, drain <= 86_400, timeout > 0, timeout <= 3600 else {
            throw ValidationError("--interval, --drain and --timeout take seconds.")
        }
        let isPlain = (backend + socket + (map ?? "") + (serverAuthority ?? "")).unicodeScalars.allSatisfy {
            $0.value > 0x20 && $0 != ";"
        }
        guard isPlain, !backend.isEmpty else {
            throw ValidationError("Names and paths have no blanks and no semicolons.")
        }
        guard serverOptions.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0 != ";" }) else {
            throw ValidationError("--server-options are of one line, and have no semicolons.")
        }
    }

    func run() async throws {
        try await StoreClient.use(entrance: nodes[0], seconds: timeout, tokenFile: tokenFile, ca: ca) { client in
            let balancer = BalancerSync(
                client: client, socket: BalancerSocket(path: socket), backend: backend, map: map,
                serverOptions: serverOptions, serverAuthority: serverAuthority, drainSeconds: drain, nodes: nodes)
            if watch {
                await Termination.cancelling {
                    var balancer = balancer
                    await balancer.follow(every: .seconds(interval))
                }
            } else {
                var balancer = balancer
                try await balancer.settle()
            }
        }
    }
}
