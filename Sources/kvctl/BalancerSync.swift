// SPDX-License-Identifier: Apache-2.0

internal import Control
internal import HashRing
private import KeyValue

/// Brings HAProxy to where the ring is, one look at both at a time.
///
/// It remembers nothing that matters: HAProxy is asked each time what it has, so a reload, which forgets map and added
/// servers, is healed by the next look, and so is a sync that died half-way.
struct BalancerSync {
    private let client: StoreClient
    private let socket: BalancerSocket
    private let backend: String
    private let namedMap: String?
    private let serverOptions: String
    /// By which HAProxy verifies nodes; nil: it speaks plain text to them.
    private let serverAuthority: String?
    private let drainSeconds: Double

    /// Those that were named, and whoever the ring has.
    private var nodes: [NodeID]
    private let named: [NodeID]
    private var next = 0
    /// Since when a server has been drained.
    private var drainedSince: [String: ContinuousClock.Instant] = [:]
    private var lastError = ""

    /// So many nodes are asked at each look, in turn; the newest ring counts, so that one that lags, or was cut off,
    /// misleads for one look at most.
    private static let asked = 3
    /// HAProxy takes a command with its payload in one buffer (16 KiB).
    private static let payloadBytes = 12 << 10
    private static let settlePause = Duration.milliseconds(100)
    /// Beside the time for draining.
    private static let settleSeconds = 30.0

    init(
        client: StoreClient, socket: BalancerSocket, backend: String, map: String?, serverOptions: String,
        serverAuthority: String?, drainSeconds: Double, nodes: [NodeID]
    ) {
        self.client = client
        self.socket = socket
        self.backend = backend
        self.namedMap = map
        self.serverOptions = serverOptions
        self.serverAuthority = serverAuthority
        self.drainSeconds = drainSeconds
        self.nodes = nodes
        self.named = nodes
    }

    /// Until it is cancelled. What goes wrong is said once, and tried again.
    mutating func follow(every interval: Duration) async {
        while !Task.isCancelled {
            do {
                _ = try await look()
                if !lastError.isEmpty { Console.note("works again") }
                lastError = ""
            } catch {
                // (Nodes that were not waited for, then, say nothing of themselves.)
                guard !Task.isCancelled else { return }
                let message = (error as? Failure)?.message ?? "\(error)"
                if message != lastError { Console.error(message) }
                lastError = message
            }
            try? await Task.sleep(for: interval)
        }
    }

    /// Until nothing is left to be done.
    mutating func settle() async throws {
        let end = ContinuousClock.now + .seconds(drainSeconds + BalancerSync.settleSeconds)
        while try await look() {
            guard ContinuousClock.now < end else {
                throw Failure(.unavailable, "HAProxy is not there yet: a server that has left is still in use")
            }
            try await Task.sleep(for: BalancerSync.settlePause)
        }
    }

    /// Whether something was left to be done.
    private mutating func look() async throws -> Bool {
        do {
            return try await compare()
        } catch let malformed as BalancerAnswers.Malformed {
            throw Failure(.refused, "HAProxy answers with \(malformed.what)")
        }
    }

    private mutating func compare() async throws -> Bool {
        let ring = try await newestRing()
        let map = try mapName()
        var servers = try BalancerAnswers.servers(try socket.send("show servers state \(backend)"))
        let requests = try BalancerAnswers.requests(try socket.send("show stat"), backend: backend)
        for index in servers.indices { servers[index].requests = requests[servers[index].name] ?? 0 }
        let entries = BalancerAnswers.mapEntries(try socket.send("show map \(map)"))
        let now = ContinuousClock.now
        // (After a reload, another one may have the name of a server that was being drained.)
        drainedSince = drainedSince.filter { drained in servers.contains { $0.name == drained.key } }
        let limit = Duration.seconds(drainSeconds)
        let overdue = Set(drainedSince.filter { now - $0.value >= limit }.map(\.key))
        let plan = BalancerPlan(
            ring: ring, servers: servers, mapEntries: entries, leaving: Set(drainedSince.keys), overdue: overdue)
        for server in servers where server.isDraining && drainedSince[server.name] == nil {
            drainedSince[server.name] = now
        }
        for action in plan.actions { try perform(action, map: map, epoch: ring.epoch) }
        nodes = named + ring.everybody.filter { !named.contains($0) }
        // A server that is being drained asks for another look.
        return !plan.actions.isEmpty
            || servers.contains { server in server.node.map { !ring.everybody.contains($0) } ?? false }
    }

    private mutating func newestRing() async throws -> BalancerRing {
        let count = min(BalancerSync.asked, nodes.count)
        let chosen = (0..<count).map { nodes[(next + $0) % nodes.count] }
        next = (next + count) % nodes.count
        var found = await rings(of: chosen)
        // Perhaps those are just the ones that are down.
        if found.isEmpty { found = await rings(of: nodes.filter { !chosen.contains($0) }) }
        guard let newest = found.max(by: { $0.epoch < $1.epoch }) else {
            throw Failure(.unavailable, "no node tells the ring; HAProxy stays as it is")
        }
        return newest
    }

    private func rings(of nodes: [NodeID]) async -> [BalancerRing] {
        let client = client
        return await withTaskGroup(of: BalancerRing?.self) { group in
            for node in nodes {
                group.addTask {
                    // (A node without a ring, or that is away, does not count.)
                    guard let answer = try? await client.send(.init(target: "/status", node: node)),
                        answer.status == 200, let status = try? answer.decoded(NodeStatus.self)
                    else { return nil }
                    return BalancerRing(status)
                }
            }
            return await group.reduce(into: []) { rings, ring in if let ring { rings.append(ring) } }
        }
    }

    private func mapName() throws -> String {
        let names = BalancerAnswers.mapNames(try socket.send("show map"))
        if let namedMap {
            guard names.contains(namedMap) else {
                throw Failure(.refused, "HAProxy has no map \(namedMap), but \(names.joined(separator: ", "))")
            }
            return namedMap
        }
        let found = names.filter { $0 == "ring.map" || $0.hasSuffix("/ring.map") }
        guard let name = found.first, Set(found).count == 1 else {
            throw Failure(.refused, "HAProxy has no map called ring.map, or several; name it by --map")
        }
        return name
    }

    private mutating func perform(_ action: BalancerPlan.Action, map: String, epoch: Epoch) throws {
        switch action {
        case .add(let name, let node):
            let secured = serverAuthority.map { authority in
                // (HAProxy compares it with the certificate's common name: of addresses among its other names it knows
                // nothing.)
                " ssl verify required verifyhost \(node.host) ca-file \(authority) ssl-min-ver TLSv1.2 check-ssl"
            }
            try order(
                "add server \(backend)/\(name) \(node) \(serverOptions)\(secured ?? "")",
                expects: "New server registered.")
            try order("enable health \(backend)/\(name)")
            try order("enable server \(backend)/\(name)")
            Console.note("added server \(name)")
        case .enable(let name):
            try order("enable health \(backend)/\(name)")
            try order("set server \(backend)/\(name) state ready")
            drainedSince[name] = nil
            Console.note("server \(name) is back")
        case .swapMap(let lines):
            try swap(lines, map)
            Console.note("map of epoch \(epoch): \(lines.count) ranges")
        case .drain(let name):
            try order("set server \(backend)/\(name) state drain")
            drainedSince[name] = ContinuousClock.now
            Console.note("draining server \(name)")
        case .maintain(let name): try order("set server \(backend)/\(name) state maint")
        case .remove(let name):
            let answer = try socket.send("del server \(backend)/\(name)")
            if answer.hasPrefix("Server deleted") {
                drainedSince[name] = nil
                Console.note("removed server \(name)")
            } else if !answer.contains("still has connections attached") {
                throw Failure(.refused, "HAProxy does not remove \(name): \(answer)")
            }
        }
    }

    /// The whole map at once: a request sees the old one or the new one.
    private func swap(_ lines: [BalancerMap.Line], _ map: String) throws {
        let version = try BalancerAnswers.preparedVersion(try socket.send("prepare map \(map)"))
        var payload = ""
        func add() throws {
            guard !payload.isEmpty else { return }
            try order("add map @\(version) \(map) <<\n\(payload)")
            payload = ""
        }
        do {
            for line in lines {
                if payload.utf8.count + line.text.utf8.count + 1 > BalancerSync.payloadBytes { try add() }
                payload += line.text + "\n"
            }
            try add()
            try order("commit map @\(version) \(map)")
        } catch {
            // (What was prepared stays in HAProxy's memory until a later version is committed; each look makes one.)
            _ = try? socket.send("clear map @\(version) \(map)")
            throw error
        }
    }

    /// A command that answers nothing, or that, among whatever else HAProxy has to say.
    private func order(_ command: String, expects expected: String = "") throws {
        let answer = try socket.send(command)
        guard expected.isEmpty ? answer.isEmpty : answer.contains(expected) else {
            throw Failure(.refused, "HAProxy answers `\(command.prefix { $0 != "\n" })` with: \(answer)")
        }
    }
}
