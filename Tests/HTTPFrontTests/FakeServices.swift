// SPDX-License-Identifier: Apache-2.0

import Cluster
import HTTPFront
import HashRing
import KeyValue
import NIOCore
import RequestTracing

/// A store of one process's dictionary. It answers at once, or, while `isSlow`, only when told to.
final class FakeData: DataService {
    var asker: RequestTrace?
    var standing = RingStanding.present
    var document: RingDocument?
    var itemBytes = 1 << 20
    var wallMilliseconds: UInt64 = 1_000_000
    var pairs: [Key: Envelope] = [:]
    var here: [Key: Envelope] = [:]
    /// What the next operations fail with.
    var failure: OperationFailure?
    /// The same for conditional writes alone.
    var conditionalFailure: OperationFailure?
    /// So many conditional writes are too late.
    var overtakes = 0
    var isSlow = false
    /// What waits while the store is slow.
    var waiting: [() -> Void] = []
    private(set) var operationCount = 0
    private(set) var mostAtOnce = 0
    private var clock = HybridClock(writer: 7)
    private var names: [StoredKey: Key] = [:]

    init() {
        let node = NodeID("127.0.0.11:5000")!
        document = RingDocument(
            epoch: Epoch(3), ring: Ring(seats: [Ring.Seat(position: Position(3000)!, node: node)])!,
            standbys: [NodeID("127.0.0.13:5000")!])
    }

    func holders(of key: Key) -> [NodeID]? { standing == .present ? document?.ring.nodes : nil }

    func valueLimit(for storedKey: StoredKey, of key: Key) -> Int { itemBytes - Limits.itemOverheadBytes }

    /// What the latest request asked for.
    private(set) var wanted: Consistency?

    func consistency(_ level: Consistency.Level?, quorum: Int?, isWrite: Bool) -> Consistency {
        Consistency(level ?? .sloppy, quorum: quorum)
    }

    func read(
        _ key: Key, _ consistency: Consistency?, completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) {
        wanted = consistency
        perform { completion($0.map { self.pairs[key] }) }
    }

    func write(
        _ key: StoredKey, _ envelope: Envelope, _ consistency: Consistency?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        wanted = consistency
        perform { result in
            completion(
                result.map {
                    if key.isChunk {
                        self.chunks[key] = self.stamped(envelope)
                        return self.chunks[key]!.version
                    }
                    self.pairs[self.name(key, envelope)] = self.stamped(envelope)
                    return self.pairs[self.name(key, envelope)]!.version
                })
        }
    }

    func write(
        _ key: StoredKey, _ envelope: Envelope, if precondition: Precondition, _ consistency: Consistency?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        if let conditionalFailure {
            operationCount += 1
            return completion(.failure(conditionalFailure))
        }
        let held = key.isChunk ? chunks[key] : pairs[name(key, envelope)]
        if overtakes > 0 {
            overtakes -= 1
            return completion(.failure(.preconditionFailed(held: held?.version ?? .none)))
        }
        guard failure == nil, precondition.verdict(on: held, atMilliseconds: wallMilliseconds) != .met else {
            return write(key, envelope, consistency, completion: completion)
        }
        let isGone = held?.isGone(atMilliseconds: wallMilliseconds) ?? true
        completion(.failure(.preconditionFailed(held: isGone ? .none : held?.version ?? .none)))
    }

    func restore(
        _ key: StoredKey, _ record: Envelope, completion: @escaping (Result<Bool, OperationFailure>) -> Void
    ) {
        perform { result in
            completion(
                result.map {
                    let name = self.name(key, record)
                    guard self.pairs[name]?.version ?? .none < record.version else { return false }
                    self.pairs[name] = record
                    return true
                })
        }
    }

    func readHere(_ key: StoredKey, completion: @escaping (Result<Envelope?, OperationFailure>) -> Void) {
        perform { completion($0.map { key.isChunk ? self.chunks[key] : self.here[key.clientKey!] }) }
    }

    /// Chunks of large values.
    var chunks: [StoredKey: Envelope] = [:]

    func read(
        stored key: StoredKey, _ consistency: Consistency?,
        completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) {
        wanted = consistency
        perform { completion($0.map { self.chunks[key] }) }
    }

    func writeHere(
        _ key: StoredKey, _ envelope: Envelope, completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        perform { result in
            completion(
                result.map {
                    self.here[self.name(key, envelope)] = self.stamped(envelope)
                    return self.here[self.name(key, envelope)]!.version
                })
        }
    }

    func serve(_ batch: PeerBatch, completion: @escaping (Coordinator.Served) -> Void) {
        guard batch.epoch == document?.epoch else { return completion(.refused(document)) }
        let outcomes = batch.operations.map { _ in Outcome.record(nil) }
        completion(
            .answer(PeerBatchAnswer(epoch: batch.epoch, generation: Generation(9), clock: 1, outcomes: outcomes)))
    }

    /// Answers some of what waits, in the given order of indices.
    func release(_ order: [Int]) {
        let ready = waiting
        waiting = ready.indices.filter { !order.contains($0) }.map { ready[$0] }
        for index in order { ready[index]() }
    }

    private func perform(_ operation: @escaping (Result<Void, OperationFailure>) -> Void) {
        operationCount += 1
        let result: Result<Void, OperationFailure> = failure.map { .failure($0) } ?? .success(())
        guard isSlow else { return operation(result) }
        waiting.append { operation(result) }
        mostAtOnce = max(mostAtOnce, waiting.count)
    }

    private func stamped(_ envelope: Envelope) -> Envelope {
        var envelope = envelope
        envelope.stamp(clock.tick(wallMicroseconds: 1_000_000))
        return envelope
    }

    private func name(_ key: StoredKey, _ envelope: Envelope) -> Key {
        key.clientKey ?? Key(Array(envelope.keyInside!.readableBytesView))!
    }
}

/// What operators ask for, recorded and answered as told.
actor FakeOperators: OperatorService {
    var error: OperatorError?
    var installed: [Ring] = []
    var standbys: [NodeID] = []
    var changes: [ChangeRequest] = []
    var batches: [[(key: Key, value: ByteBuffer?)]] = []
    /// Fails once all batches were handed over.
    var breaksOff = false

    /// What is listed, a part at a time.
    var parts: [ListingMerge] = []
    /// What was asked for, part by part.
    var queries: [PairListing.Query] = []

    func set(parts: [ListingMerge]) { self.parts = parts }

    func part(_ query: PairListing.Query) async throws -> ListingMerge {
        queries.append(query)
        guard !parts.isEmpty else { throw PairListing.Failure.tooFewAnswer([:]) }
        return parts.removeFirst()
    }

    func set(error: OperatorError?) { self.error = error }

    func set(batches: [[(key: Key, value: ByteBuffer?)]], breaksOff: Bool = false) {
        self.batches = batches
        self.breaksOff = breaksOff
    }

    func install(_ ring: Ring, replicas: Int, standbys: [NodeID]) async throws(OperatorError) {
        if let error { throw error }
        installed.append(ring)
        self.standbys = standbys
    }

    func change(_ request: ChangeRequest, isForced: Bool, without gone: Set<NodeID>) async throws(OperatorError)
        -> String?
    {
        if let error { throw error }
        changes.append(request)
        return isForced ? (["forced"] + gone.sorted().map(\.description)).joined(separator: " without ") : nil
    }

    func abortChange() async throws(OperatorError) { if let error { throw error } }

    func clear() async throws(OperatorError) -> Int {
        if let error { throw error }
        return 3
    }

    func forEachPair(_ body: @Sendable ([(key: Key, value: ByteBuffer?)]) async throws -> Void) async throws {
        for batch in batches { try await body(batch) }
        if breaksOff { throw OperatorError.unreachable("a test broke it off") }
    }

    func status() async -> ByteBuffer { ByteBuffer(string: "{\"epoch\":3}") }

    func metrics() async -> ByteBuffer { ByteBuffer(string: "a 1\n") }

    func plan(_ request: ChangeRequest) async throws(OperatorError) -> ByteBuffer {
        if let error { throw error }
        changes.append(request)
        return ByteBuffer(string: "{}\n")
    }

    func copies(
        of key: Key, at holders: [NodeID], here: @escaping @Sendable () async -> Result<Envelope?, OperationFailure>
    ) async -> ByteBuffer {
        ByteBuffer(string: "{\"holders\":\(holders.count)}\n")
    }

    /// What is told, one event after the other, until it is enough.
    var events: [ByteBuffer] = []
    /// As often as `tell` was awaited to its end.
    private(set) var told = 0

    func set(events: [ByteBuffer]) { self.events = events }

    func watchRing(_ tell: @Sendable (ByteBuffer) async throws -> Bool) async throws {
        for event in events {
            let goesOn = try await tell(event)
            told += 1
            if !goesOn { return }
        }
    }

    func peerCall(_ name: String, _ body: ByteBuffer) async throws(PeerCallError) -> ByteBuffer {
        guard name == "echo" else { throw .unknownCall }
        return body
    }
}

/// Runs what it is given, as long as it takes work.
struct FakeTasks: OperatorTasks {
    var takesWork = true

    func run(_ kind: OperatorTaskKind, _ work: @escaping @Sendable () async -> Void) -> Bool {
        guard takesWork else { return false }
        Task { await work() }
        return true
    }
}
