// SPDX-License-Identifier: Apache-2.0

internal import Cluster
internal import HTTPFront
internal import HashRing
internal import KeyValue
internal import NIOCore
internal import RequestTracing
internal import TestSupport

/// A store of one process's dictionary, which answers at once, and alike in each run.
final class FuzzStore: DataService, DictionaryStore {
    static let node = NodeID("127.0.0.11:5000")!

    var asker: RequestTrace?
    let standing = RingStanding.present
    let document: RingDocument?
    let itemBytes = 8192
    let wallMilliseconds: UInt64 = 1_700_000_000_000
    private(set) var pairs: [StoredKey: Envelope] = [:]

    /// As far as they are the same in each run: the names of chunks are drawn, and manifests say them.
    var visiblePairs: [StoredKey: Envelope] {
        guard pairs.keys.contains(where: { $0.isChunk }) else { return pairs }
        return pairs.filter { !$0.key.isChunk }.mapValues { pair in
            pair.largeValue == nil ? pair : pair.head
        }
    }

    private var clock = HybridClock(writer: 7)

    init() {
        document = RingDocument(
            epoch: Epoch(3), ring: Ring(seats: [Ring.Seat(position: Position(3000)!, node: FuzzStore.node)])!)
    }

    func valueLimit(for storedKey: StoredKey, of key: Key) -> Int { itemBytes - Limits.itemOverheadBytes }

    func holders(of key: Key) -> [NodeID]? { [FuzzStore.node] }

    func consistency(_ level: Consistency.Level?, quorum: Int?, isWrite: Bool) -> Consistency {
        Consistency(level ?? .sloppy, quorum: quorum)
    }

    func read(
        _ key: Key, _ consistency: Consistency?, completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) {
        read(stored: StoredKey(key), consistency, completion: completion)
    }

    func read(
        stored key: StoredKey, _ consistency: Consistency?,
        completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) {
        completion(.success(pairs[key].flatMap { $0.isTombstone ? nil : $0 }))
    }

    func write(
        _ key: StoredKey, _ envelope: Envelope, _ consistency: Consistency?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        var envelope = envelope
        envelope.stamp(clock.tick(wallMicroseconds: wallMilliseconds * 1000))
        hold(Envelope(envelope.buffer) == envelope, "a pair that can't be read again")
        pairs[key] = envelope
        completion(.success(envelope.version))
    }

    func held(_ key: StoredKey) -> Envelope? { pairs[key] }

    func restore(
        _ key: StoredKey, _ record: Envelope, completion: @escaping (Result<Bool, OperationFailure>) -> Void
    ) {
        pairs[key] = record
        completion(.success(true))
    }

    func readHere(_ key: StoredKey, completion: @escaping (Result<Envelope?, OperationFailure>) -> Void) {
        read(stored: key, nil, completion: completion)
    }

    func writeHere(
        _ key: StoredKey, _ envelope: Envelope, completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        write(key, envelope, nil, completion: completion)
    }

    func serve(_ batch: PeerBatch, completion: @escaping (Coordinator.Served) -> Void) {
        let outcomes = batch.operations.map { _ in Outcome.record(nil) }
        completion(
            .answer(PeerBatchAnswer(epoch: batch.epoch, generation: Generation(9), clock: 1, outcomes: outcomes)))
    }
}

/// Nobody does what would leave the event loop.
struct NoTasks: OperatorTasks {
    func run(_ kind: OperatorTaskKind, _ work: @escaping @Sendable () async -> Void) -> Bool { false }
}

struct NoOperators: OperatorService {
    func install(_ ring: Ring, replicas: Int, standbys: [NodeID]) async throws(OperatorError) {}
    func change(
        _ request: ChangeRequest, isForced: Bool, without gone: Set<NodeID>
    ) async throws(OperatorError) -> String? { nil }
    func abortChange() async throws(OperatorError) {}
    func clear() async throws(OperatorError) -> Int { 0 }
    func forEachPair(_ body: @Sendable ([(key: Key, value: ByteBuffer?)]) async throws -> Void) async throws {}
    func part(_ query: PairListing.Query) async throws -> ListingMerge { throw OperatorError.unreachable("none") }
    func status() async -> ByteBuffer { ByteBuffer() }
    func metrics() async -> ByteBuffer { ByteBuffer() }
    func plan(_ request: ChangeRequest) async throws(OperatorError) -> ByteBuffer { ByteBuffer() }
    func copies(
        of key: Key, at holders: [NodeID], here: @escaping @Sendable () async -> Result<Envelope?, OperationFailure>
    ) async -> ByteBuffer { ByteBuffer() }
    func watchRing(_ tell: @Sendable (ByteBuffer) async throws -> Bool) async throws {}
    func peerCall(_ name: String, _ body: ByteBuffer) async throws(PeerCallError) -> ByteBuffer { body }
}
