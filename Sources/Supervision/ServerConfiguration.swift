// SPDX-License-Identifier: Apache-2.0

package import AccessControl
private import Etcd
private import FoundationEssentials
private import Glibc
package import HashRing
package import KeyValue
package import Logging
private import Memcached
private import TransportSecurity

/// What the daemon is told, checked as a whole. The supervisor reads it; its workers get it from the supervisor as it
/// stands, so that a file that is being edited can't part them.
package struct ServerConfiguration: Sendable, Hashable, Codable {
    /// How this node is known to the ring and to the other nodes.
    package let node: NodeID
    /// Where clients and other nodes connect to.
    package let listen: NodeID
    /// Where clients connect to who speak memcached's protocol, at `listen`'s address; nil: nowhere.
    package let memcachedPort: Int?
    /// How far above a node's port its peers call it, at a port of their own; 0: they call it where clients do. The
    /// same on every node.
    package let peerPortOffset: Int
    package let workers: Int
    /// A unix socket's path, or `host:port`.
    package let memcached: String
    package let stateDirectory: String
    /// How often the pairs are written to disk; 0: never.
    package let snapshotSeconds: Int
    /// Whether each write goes to a log on disk as well, which is synced every second.
    package let appendLog: Bool
    package let requestDeadlineMilliseconds: Int
    /// Of requests that say nothing else.
    package let consistency: Consistency.Level
    /// How many replicas answer a read, or hold a write, before the client hears of it; nil: a majority.
    package let readQuorum: Int?
    package let writeQuorum: Int?
    /// How often this node compares what it holds with other replicas; 0: only after one has been away.
    package let repairSeconds: Int
    /// How long a large value may take to arrive and be stored; the same on every node.
    package let uploadSeconds: Int
    /// How long a leaving worker waits for its connections.
    package let drainSeconds: Int
    /// Origins whose pages may use `/keys` from a browser, between commas, or `*` for all; nil: none.
    package let corsOrigins: String?
    /// Files of the tokens for pairs, for changes and among the nodes; nil: none is asked for.
    package let dataTokenFile: String?
    package let adminTokenFile: String?
    package let peerTokenFile: String?
    /// Files in PEM of what clients are shown, a certificate chain and its key; nil: they speak plain text.
    package let tlsCertificateFile: String?
    package let tlsKeyFile: String?
    /// Likewise of what nodes show to each other, and of the authority by which they know each other.
    package let peerCertificateFile: String?
    package let peerKeyFile: String?
    package let peerAuthorityFile: String?
    /// Where nodes may be, as CIDR blocks between commas; nil: on loopback and in private networks.
    package let peers: String?
    /// Whether it listens beyond loopback without tokens for changes and among the nodes.
    package let insecure: Bool
    /// etcd's members, between commas, which keep the ring for all nodes; nil: the nodes agree among themselves.
    package let etcd: String?
    /// What this cluster's keys in etcd begin with.
    package let etcdPrefix: String
    package let logLevel: Logger.Level
    package let logFormat: LogFormat
    /// A request that takes so long is logged; 0: only those that fail.
    package let slowRequestMilliseconds: Int
    /// Whether requests of sampled traces have their spans logged.
    package let traceSpans: Bool
    package let allowFailpoints: Bool
    package let failpointsFile: String?
    package let clockOffsetMilliseconds: Int64

    package enum LogFormat: String, Sendable, Codable, CaseIterable { case text, json }

    /// Each worker has a slot of its own; a roll needs one for the newcomer and some for those that leave.
    package static let workerLimit = SupervisorStateMachine.slots - SupervisorStateMachine.leavingAtOnce

    /// - Parameter layers: the first one that has a setting decides it.
    /// - Throws: `ConfigurationError`, which names the setting and where its value came from.
    package init(_ layers: [ConfigurationLayer]) throws(ConfigurationError) {
        let found = Lookup(layers: layers)
        guard let node = try found.parsed(.node, as: "a literal ip:port", { NodeID($0) }) else {
            throw ConfigurationError(
                "node is not set: this node's ip:port goes into the file, --node or \(Setting.node.environmentName)")
        }
        self.node = node
        self.listen = try found.parsed(.listen, as: "a literal ip:port", { NodeID($0) }) ?? node
        self.memcachedPort = try found.number(.memcachedPort, in: 1...65_535)
        if let memcachedPort, memcachedPort == Int(listen.port) {
            throw ConfigurationError("memcachedPort is the port of HTTP: \(memcachedPort)")
        }
        self.peerPortOffset = try found.number(.peerPortOffset, in: 0...65_534) ?? 0
        for name in [node, listen] where name.shifted(by: peerPortOffset) == nil {
            throw ConfigurationError(
                "peerPortOffset is \(peerPortOffset), and ports end at 65535: the peers of \(name) could not call it")
        }
        if let memcachedPort, peerPortOffset > 0, memcachedPort == Int(listen.port) + peerPortOffset {
            throw ConfigurationError("memcachedPort is the peers' port: \(memcachedPort)")
        }
        self.workers =
            try found.number(.workers, in: 1...ServerConfiguration.workerLimit)
            ?? min(max(sysconf(Int32(_SC_NPROCESSORS_ONLN)), 1), ServerConfiguration.workerLimit)
        self.memcached =
            try found.parsed(
                .memcached, as: "a unix socket's path of at most 107 bytes, or host:port",
                { MemcachedEndpoint($0) == nil ? nil : $0 }) ?? "/run/kvserver/memcached.sock"
        self.stateDirectory =
            try found.parsed(.stateDirectory, as: "an absolute path", { $0.hasPrefix("/") ? $0 : nil })
            ?? "/var/lib/kvserver"
        self.snapshotSeconds = try found.number(.snapshotSeconds, in: 0...86_400) ?? 60
        self.appendLog = try found.parsed(.appendLog, as: "true or false", { Bool($0) }) ?? false
        if appendLog, snapshotSeconds == 0 {
            throw ConfigurationError(
                "appendLog needs snapshots, which cut the log off: snapshotSeconds is 0, and it would grow without end")
        }
        self.requestDeadlineMilliseconds =
            try found.number(.requestDeadlineMilliseconds, in: 100...60_000) ?? 1000
        self.consistency =
            try found.parsed(.consistency, as: "strict or sloppy", { Consistency.Level(rawValue: $0) }) ?? .sloppy
        self.readQuorum = try found.number(.readQuorum, in: 1...Limits.replicas)
        self.writeQuorum = try found.number(.writeQuorum, in: 1...Limits.replicas)
        self.uploadSeconds = try found.number(.uploadSeconds, in: 3...86_400) ?? Limits.uploadSeconds
        self.repairSeconds = try found.number(.repairSeconds, in: 0...86_400) ?? 60
        self.drainSeconds = try found.number(.drainSeconds, in: 0...3600) ?? 10
        self.corsOrigins = try found.parsed(
            .corsOrigins, as: "* or a list of origins between commas, as https://example.com",
            { OriginList($0) == nil ? nil : $0 })
        func file(_ setting: Setting) throws(ConfigurationError) -> String? {
            try found.parsed(setting, as: "an absolute path", { $0.hasPrefix("/") ? $0 : nil })
        }
        self.dataTokenFile = try file(.dataTokenFile)
        self.adminTokenFile = try file(.adminTokenFile)
        self.peerTokenFile = try file(.peerTokenFile)
        self.tlsCertificateFile = try file(.tlsCertificateFile)
        self.tlsKeyFile = try file(.tlsKeyFile)
        self.peerCertificateFile = try file(.peerCertificateFile)
        self.peerKeyFile = try file(.peerKeyFile)
        self.peerAuthorityFile = try file(.peerAuthorityFile)
        if (tlsCertificateFile == nil) != (tlsKeyFile == nil) {
            throw ConfigurationError("tlsCertificateFile and tlsKeyFile go together: one of them is not set")
        }
        let ofPeers = [peerCertificateFile, peerKeyFile, peerAuthorityFile].count { $0 != nil }
        if ofPeers != 0, ofPeers != 3 {
            throw ConfigurationError(
                "peerCertificateFile, peerKeyFile and peerAuthorityFile go together: \(3 - ofPeers) of them not set")
        }
        if peerPortOffset == 0, tlsCertificateFile != nil || ofPeers != 0 {
            throw ConfigurationError(
                "TLS needs a peerPortOffset: clients and peers show different certificates, at a port each")
        }
        self.peers = try found.parsed(
            .peers, as: "a list of CIDR blocks between commas, as 10.0.0.0/8,fd12:3456::/32",
            { PeerAllowList($0) == nil ? nil : $0 })
        guard ServerConfiguration.allowedPeers(peers).contains(node) else {
            throw ConfigurationError(
                """
                node is \(node), which is not where nodes may be (peers: \(peers ?? "loopback and private networks")), \
                so no other node would call it
                """)
        }
        self.insecure = try found.parsed(.insecure, as: "true or false", { Bool($0) }) ?? false
        self.etcd = try found.parsed(
            .etcd, as: "a list of etcd's members between commas, each once, as http://10.0.0.2:2379",
            { EtcdEndpoint.list($0) == nil ? nil : $0 })
        let etcdPrefix = try found.parsed(
            .etcdPrefix, as: "a prefix for keys: / and then letters, digits, / - _ . and no / at its end",
            { ServerConfiguration.isPrefix($0) ? $0 : nil })
        if etcdPrefix != nil, etcd == nil { throw ConfigurationError("etcdPrefix is set, and etcd is not") }
        self.etcdPrefix = etcdPrefix ?? "/kvserver"
        self.logLevel =
            try found.parsed(
                .logLevel, as: "one of trace, debug, info, notice, warning, error",
                { Logger.Level(rawValue: $0) }) ?? .info
        self.logFormat = try found.parsed(.logFormat, as: "text or json", { LogFormat(rawValue: $0) }) ?? .text
        self.slowRequestMilliseconds = try found.number(.slowRequestMilliseconds, in: 0...3_600_000) ?? 250
        self.traceSpans = try found.parsed(.traceSpans, as: "true or false", { Bool($0) }) ?? true
        self.allowFailpoints =
            try found.parsed(.allowFailpoints, as: "true or false", { Bool($0) }) ?? false
        self.failpointsFile = try found.parsed(.failpointsFile, as: "a path", { $0.isEmpty ? nil : $0 })
        self.clockOffsetMilliseconds = Int64(
            try found.number(.clockOffsetMilliseconds, in: -86_400_000...86_400_000) ?? 0)
        if clockOffsetMilliseconds != 0, !allowFailpoints {
            throw ConfigurationError("clockOffsetMilliseconds is for tests: it needs allowFailpoints")
        }
        if failpointsFile != nil, !allowFailpoints {
            throw ConfigurationError("failpointsFile is for tests: it needs allowFailpoints")
        }
    }

    /// The tokens that these files have, which are looked at together: what is missing for this configuration is told.
    /// - Parameter credentials: systemd's directory of this service's secrets.
    package func readTokens(credentials: String?) throws(ConfigurationError) -> AccessTokens {
        let tokens: AccessTokens
        do {
            tokens = try AccessTokens.read(
                data: dataTokenFile, admin: adminTokenFile, peer: peerTokenFile, credentials: credentials)
        } catch {
            throw ConfigurationError(error.description)
        }
        if !insecure, tokens.admin == nil || tokens.peer == nil, IPAddress(listen.host)?.isLoopback != true {
            let missing = [tokens.admin == nil ? "admin" : nil, tokens.peer == nil ? "peer" : nil].compactMap { $0 }
            throw ConfigurationError(
                """
                listen is \(listen), beyond loopback, and there is no \(missing.joined(separator: " and no ")) token, so \
                whoever reaches it could change the ring: name files of them by \
                \(missing.map { $0 + "TokenFile" }.joined(separator: " and ")) (setup.sh node makes them), \
                or set insecure where nobody else can reach it
                """)
        }
        // (A call between nodes reads pairs and brings rings, so it would go around the other two doors.)
        if !insecure, tokens.peer == nil, tokens.data != nil || tokens.admin != nil {
            throw ConfigurationError(
                """
                there is a token for \(tokens.data == nil ? "changes" : "pairs"), and there is no peer token, so whoever \
                reaches \(listen) could do by /peer what it keeps from them: name a file of one by peerTokenFile, or set \
                insecure where nobody else can reach it
                """)
        }
        return tokens
    }

    /// What this configuration's files have that must not be seen, all looked at together.
    /// - Parameter credentials: systemd's directory of this service's secrets.
    package func readSecrets(credentials: String?) throws(ConfigurationError) -> NodeSecrets {
        let tokens = try readTokens(credentials: credentials)
        do throws(SecretFile.Failure) {
            var clients: TLSIdentity?
            if let chain = tlsCertificateFile, let key = tlsKeyFile {
                clients = try .read(chain: chain, key: key, isCredential: SecretFile.isCredential(key, of: credentials))
            }
            var peers: TLSSecrets.Peers?
            if let chain = peerCertificateFile, let key = peerKeyFile, let authority = peerAuthorityFile {
                peers = try .read(
                    chain: chain, key: key, authority: authority, of: node,
                    isCredential: SecretFile.isCredential(key, of: credentials))
                if tokens.peer == nil {
                    throw SecretFile.Failure(
                        description:
                            "peerCertificateFile is set, and there is no peer token: by its proof a node says which one it is"
                    )
                }
            }
            return NodeSecrets(tokens: tokens, tls: TLSSecrets(clients: clients, peers: peers))
        } catch {
            throw ConfigurationError(error.description)
        }
    }

    /// Which doors stand open for others than this machine, a line each; for whoever runs the node.
    package func openDoors(_ tokens: AccessTokens) -> [String] {
        var lines: [String] = []
        if insecure {
            lines.append(
                tokens.peer == nil
                    ? "insecure: whoever reaches this node is taken for a node of the cluster"
                    : "insecure overrides the peer token: whoever reaches this node is taken for a node of the cluster")
            if tokens.admin == nil { lines.append("insecure: whoever reaches this node may change the ring") }
        }
        if tokens.data == nil, IPAddress(listen.host)?.isLoopback != true {
            lines.append("there is no data token: pairs are open to whoever reaches \(listen)")
        }
        return lines
    }

    /// Where nodes may be.
    package var allowedPeers: PeerAllowList { ServerConfiguration.allowedPeers(peers) }

    private static func allowedPeers(_ list: String?) -> PeerAllowList { list.flatMap { PeerAllowList($0) } ?? .usual }

    /// Where the workers accept clients of memcached's; nil: nowhere.
    var memcachedListen: NodeID? {
        memcachedPort.flatMap { NodeID(listen.host.contains(":") ? "[\(listen.host)]:\($0)" : "\(listen.host):\($0)") }
    }

    /// Where the workers accept other nodes; nil: where they accept clients.
    var peerListen: NodeID? { peerPortOffset > 0 ? listen.shifted(by: peerPortOffset) : nil }

    /// To clients, and to peers.
    var speaksTLS: [Bool] { [tlsCertificateFile != nil, peerCertificateFile != nil] }

    private static func isPrefix(_ text: String) -> Bool {
        guard text.hasPrefix("/"), !text.hasSuffix("/"), text.utf8.count <= 128 else { return false }
        return text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "/-_.".contains($0)) }
    }

    // MARK: From the supervisor to its workers

    /// The whole configuration on one line.
    package var encoded: String {
        get throws { String(decoding: try JSONEncoder().encode(self), as: UTF8.self) }
    }

    package init(encoded: String) throws {
        self = try JSONDecoder().decode(ServerConfiguration.self, from: Data(encoded.utf8))
    }

    private struct Lookup {
        let layers: [ConfigurationLayer]

        func parsed<Value>(
            _ setting: Setting, as expectation: String, _ parse: (String) -> Value?
        ) throws(ConfigurationError) -> Value? {
            for layer in layers {
                guard let text = layer.values[setting] else { continue }
                if let value = parse(text) { return value }
                throw ConfigurationError(
                    "\(setting.rawValue) is not \(expectation): '\(text)' (\(layer.origin))",
                    isUsage: layer.isCommandLine)
            }
            return nil
        }

        func number(_ setting: Setting, in range: ClosedRange<Int>) throws(ConfigurationError) -> Int? {
            try parsed(setting, as: "a whole number from \(range.lowerBound) to \(range.upperBound)") { text in
                Int(text).flatMap { range.contains($0) ? $0 : nil }
            }
        }
    }
}
