// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import Logging
import Memcached
import NIOCore
import NIOPosix
import TestSupport
import Testing

/// One worker with a real memcached and a state directory: what snapshots are made of and loaded into.
struct SnapshotRig: Sendable {
    static let epoch = Epoch(3)

    let memcached: RealMemcached
    let directory: TemporaryDirectory
    let node: NodeID
    let loop: any EventLoop
    let lanes: LaneGroup
    let control: ControlStore
    let clock: WorkerClock
    let coordinator: NIOLoopBound<Coordinator>

    static func run<Result>(_ body: (SnapshotRig) async throws -> Result) async throws -> Result {
        try await RealMemcached.run { memcached in
            let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
            let endpoint = MemcachedEndpoint.unixSocket(path: memcached.path)
            let settings = MemcachedSettingsCell()
            let clock = WorkerClock(writer: 1)
            let loop = group.next()
            let node = try #require(NodeID("127.0.0.1:5000"))
            let lanes = LaneGroup(endpoint, clock: clock, settings: settings)
            let rig = SnapshotRig(
                memcached: memcached, directory: try TemporaryDirectory(), node: node, loop: loop, lanes: lanes,
                control: ControlStore(endpoint, settings: settings), clock: clock,
                coordinator: try await loop.submit {
                    NIOLoopBound(
                        Coordinator(node: node, loop: loop, lanes: lanes, clock: clock, requestTime: .seconds(1)),
                        eventLoop: loop)
                }.get())
            defer {
                rig.lanes.close()
                rig.control.close()
                group.shutdownGracefully { _ in }
            }
            try await rig.beginMemory()
            return try await body(rig)
        }
    }

    /// Gives the (empty) memcached a generation, on which the worker stands from now on.
    @discardableResult
    func beginMemory() async throws -> HostStamp {
        let stamp = HostStamp(epoch: SnapshotRig.epoch, generation: Generation(.random(in: 1 ... .max)))
        // (The connection may be one to the memcached before.)
        for _ in 0..<50 where (try? await control.addHostStamp(stamp)) != true {
            try await Task.sleep(for: .milliseconds(20))
        }
        try #require(try await control.hostStamp() == stamp)
        try await stand(on: stamp)
        return stamp
    }

    func stand(on stamp: HostStamp) async throws {
        let view = RingView(stamp: stamp, document: nil, node: node)
        try await loop.submit { [coordinator] in coordinator.value.adopt(view) }.get()
    }

    func restartEmpty() async throws -> HostStamp {
        try memcached.restartEmpty()
        return try await beginMemory()
    }

    // MARK: What is tested

    var file: SnapshotFile { SnapshotFile(directory: directory.path) }
    var path: String { directory.path + "/pairs.snapshot" }
    /// - Parameter scanKeys: how many keys one scan hands on.
    func pairs(scanKeys: Int = Limits.scanKeys) -> HostPairs {
        HostPairs(
            coordinator: coordinator, loop: loop,
            scanner: MetadumpScanner(.unixSocket(path: memcached.path), keys: scanKeys))
    }

    func writer(
        scanKeys: Int = Limits.scanKeys, failpoints: String? = nil,
        maySnapshot: @escaping @Sendable () async -> Bool = { true }
    ) -> SnapshotWriter {
        SnapshotWriter(
            SnapshotWriter.Dependencies(
                node: node, pairs: pairs(scanKeys: scanKeys), control: control, file: file, clock: clock,
                failpoints: Failpoints(isAllowed: true, text: failpoints, file: nil), maySnapshot: maySnapshot))
    }

    var loader: SnapshotLoader { loader(failpoints: nil) }

    func loader(failpoints: String?) -> SnapshotLoader {
        SnapshotLoader(
            pairs: pairs(), file: file, clock: clock,
            failpoints: Failpoints(isAllowed: true, text: failpoints, file: nil))
    }

    // MARK: Pairs

    /// Stores these records as they are.
    func store(_ records: [SnapshotRecord]) async throws {
        let stamp = try #require(try await pairs().stamp())
        for start in stride(from: 0, to: records.count, by: 200) {
            let outcomes = try await pairs().apply(
                Array(records[start..<min(start + 200, records.count)]), under: stamp)
            #expect(outcomes.allSatisfy { if case .applied = $0 { true } else { false } })
        }
    }

    /// What memcached holds under their keys.
    func held(_ records: [SnapshotRecord]) async throws -> [Envelope?] {
        let generation = try #require(try await pairs().stamp()?.generation)
        var held: [Envelope?] = []
        for start in stride(from: 0, to: records.count, by: 200) {
            let keys = records[start..<min(start + 200, records.count)].map(\.key)
            held += try await pairs().records(of: keys, in: generation)
        }
        return held
    }

    /// Pairs of all kinds: long keys, tombstones, such as expire, empty values.
    func samples(_ count: Int) -> [SnapshotRecord] {
        (0..<count).compactMap { number in
            let name = number % 7 == 0 ? String(repeating: "long", count: 100) + "\(number)" : "pair \(number)"
            guard let key = Key(Array(name.utf8)) else { return nil }
            let stored = StoredKey(key)
            let expiry = number % 5 == 1 ? clock.wallMilliseconds + 3_600_000 : nil
            return SnapshotRecord(
                key: stored,
                envelope: Envelope(
                    key: key, storedKey: stored, value: ByteBuffer(repeating: UInt8(number % 256), count: number % 300),
                    version: clock.tick(), isTombstone: number % 5 == 0, contentType: number % 3 == 0 ? "a/b" : nil,
                    expiryMilliseconds: expiry))
        }
    }
}

extension Logger {
    static var silent: Logger { Logger(label: "test") { _ in SwiftLogNoOpLogHandler() } }
}
