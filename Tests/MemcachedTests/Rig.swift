// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import Memcached
import NIOCore
import NIOPosix
import Synchronization
import TestSupport
import Testing

/// All tests with sockets and processes, one after the other: they measure times on a machine that they share.
@Suite(.serialized, .timeLimit(.minutes(3)))
enum MemcachedTests {}

/// What one worker has of its host's memcached: a clock, lanes, a control store and an event loop.
struct Rig: Sendable {
    static let stamp = HostStamp(epoch: Epoch(3), generation: Generation(0xfeed))

    let loop: any EventLoop
    let lanes: LaneGroup
    let control: ControlStore
    let clock: WorkerClock

    /// Runs `body` with the memcached at this path and ends the threads afterwards.
    /// - Parameter isStamped: whether memcached gets the stamp that batches expect, unless it has one.
    static func run<Result>(
        at path: String, writer: UInt32 = 1, isStamped: Bool = true, log: (any StoredLog)? = nil,
        _ body: (Rig) async throws -> Result
    ) async throws -> Result {
        let endpoint = MemcachedEndpoint.unixSocket(path: path)
        let settings = MemcachedSettingsCell()
        let clock = WorkerClock(writer: writer)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let rig = Rig(
            loop: group.next(), lanes: LaneGroup(endpoint, clock: clock, settings: settings, log: log),
            control: ControlStore(endpoint, settings: settings), clock: clock)
        defer {
            rig.lanes.close()
            rig.control.close()
            group.shutdownGracefully { _ in }
        }
        if isStamped { _ = try await rig.control.addHostStamp(Rig.stamp) }
        return try await body(rig)
    }

    /// With a real memcached of its own.
    static func withRealMemcached<Result>(
        megabytes: Int = 64, _ body: (RealMemcached, Rig) async throws -> Result
    ) async throws -> Result {
        try await RealMemcached.run(megabytes: megabytes) { memcached in
            try await Rig.run(at: memcached.path) { try await body(memcached, $0) }
        }
    }

    /// With a scripted one. (It gets its stamp by hand, so that nothing has been asked yet.)
    static func withFakeMemcached<Result>(_ body: (FakeMemcached, Rig) async throws -> Result) async throws -> Result {
        try await FakeMemcached.run { fake in
            fake.put("kv:stamp", Rig.stamp.bytes)
            return try await Rig.run(at: fake.path, isStamped: false) { try await body(fake, $0) }
        }
    }

    /// One batch, until its lane is done with it.
    func result(
        of operations: [Operation], expecting stamp: HostStamp = Rig.stamp, within time: TimeAmount = .seconds(1),
        isFromDisk: Bool = false
    ) async -> LaneBatchResult {
        await withCheckedContinuation { continuation in
            let batch = LaneBatch(
                operations: operations, expected: stamp, deadline: .now() + time, isFromDisk: isFromDisk)
            _ = lanes.submit(batch, on: loop) { continuation.resume(returning: $0) }
        }
    }

    func perform(_ operations: [Operation], within time: TimeAmount = .seconds(1)) async -> [Outcome] {
        await result(of: operations, within: time).outcomes
    }

    func perform(_ operation: Operation, within time: TimeAmount = .seconds(1)) async -> Outcome {
        await result(of: [operation], within: time).outcomes[0]
    }

    /// Reads what is held under the name; nil also where reading failed.
    func held(_ pair: Pair) async -> Envelope? {
        if case .record(let envelope) = await perform(.read(pair.key)) { return envelope }
        return nil
    }

    /// Tries until a read is answered; how long that took.
    func timeUntilWell(_ pair: Pair, within limit: Duration = .seconds(10)) async -> Duration {
        let start = ContinuousClock.now
        while ContinuousClock.now - start < limit {
            if case .record = await perform(.read(pair.key), within: .milliseconds(200)) { break }
            try? await Task.sleep(for: .milliseconds(10))
        }
        return ContinuousClock.now - start
    }
}

/// A client's pair; its value begins with its key, so that an answer to the wrong request shows.
struct Pair: Sendable {
    let client: Key
    let key: StoredKey

    init(_ name: String) { self.init(bytes: Array(name.utf8)) }

    init(bytes: [UInt8]) {
        guard let client = Key(bytes) else { preconditionFailure("1 to 4,096 bytes") }
        self.client = client
        self.key = StoredKey(client)
    }

    static func numbered(_ range: Range<Int>, prefix: String = "pair") -> [Pair] {
        range.map { Pair("\(prefix)-\($0)") }
    }

    /// As memcached knows it.
    var stored: String { String(decoding: key.bytes, as: UTF8.self) }

    func envelope(_ text: String = "", version: Version = .none, isTombstone: Bool = false) -> Envelope {
        Envelope(
            key: client, storedKey: key, value: ByteBuffer(bytes: client.bytes + Array("=\(text)".utf8)),
            version: version,
            isTombstone: isTombstone)
    }

    /// The text of a value of this pair; nil where it is another's.
    func text(of envelope: Envelope) -> String? {
        let bytes = Array(envelope.value.readableBytesView)
        guard bytes.starts(with: client.bytes + [UInt8(ascii: "=")]) else { return nil }
        return String(decoding: bytes.dropFirst(client.bytes.count + 1), as: UTF8.self)
    }
}

extension Envelope {
    var bytes: [UInt8] { Array(buffer.readableBytesView) }

    init?(stored bytes: [UInt8]) { self.init(ByteBuffer(bytes: bytes)) }
}

extension Outcome {
    var storedVersion: Version? { if case .stored(let version) = self { version } else { nil } }

    var record: Envelope? { if case .record(let envelope) = self { envelope } else { nil } }

    var isFailure: Bool { if case .failed = self { true } else { false } }

    var isNotApplied: Bool { if case .failed(.notApplied) = self { true } else { false } }

    var isUnknown: Bool { if case .failed(.outcomeUnknown) = self { true } else { false } }
}

/// Raised once, by one task for another.
final class Flag: Sendable {
    private let value = Atomic<Bool>(false)

    var isRaised: Bool { value.load(ordering: .acquiring) }

    func raise() { value.store(true, ordering: .releasing) }
}
