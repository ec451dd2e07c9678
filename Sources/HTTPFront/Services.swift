// SPDX-License-Identifier: Apache-2.0

package import Cluster
package import HashRing
package import KeyValue
package import NIOCore
internal import RequestTracing

/// What the front asks of the store for each request: on the event loop, without `await`. Completions come on the same
/// loop, exactly once, within the request's deadline, and may come before the call returns.
package protocol DataService: PairStore {
    /// What this worker knows of the ring: cheap enough to be asked for each request.
    var standing: RingStanding { get }
    /// The ring that this worker acts on; nil unless `standing` is `present`.
    var document: RingDocument? { get }
    /// The nodes that hold the key now, its owner first; nil without a ring.
    func holders(of key: Key) -> [NodeID]?
    /// Sees to it that a majority of the key's group holds this record, or a newer one; tells whether it was stored.
    func restore(
        _ key: StoredKey, _ record: Envelope, completion: @escaping (Result<Bool, OperationFailure>) -> Void)
    /// The consistency of a request that names a level, or a number of replicas, and not the other.
    func consistency(_ level: Consistency.Level?, quorum: Int?, isWrite: Bool) -> Consistency
    /// As `read` and `write`, on this node's memcached alone, whatever the ring says.
    func readHere(_ key: StoredKey, completion: @escaping (Result<Envelope?, OperationFailure>) -> Void)
    func writeHere(
        _ key: StoredKey, _ envelope: Envelope, completion: @escaping (Result<Version, OperationFailure>) -> Void)

    /// Another node's batch.
    func serve(_ batch: PeerBatch, completion: @escaping (Coordinator.Served) -> Void)
}

/// What a worker knows of the ring.
package enum RingStanding: Hashable, Sendable {
    /// This host's memcached does not vouch for any, or does not answer.
    case unconfirmed
    /// The node has none.
    case none
    case present
}

/// What operators and other nodes' drivers ask for: off the event loop, may take long.
package protocol OperatorService: Sendable {
    /// Installs this ring here, whatever was known before.
    /// - Parameter replicas: how many nodes hold each pair.
    func install(_ ring: Ring, replicas: Int, standbys: [NodeID]) async throws(OperatorError)
    /// Makes the change and returns once it is over. A change that is made already, or under way, is not made twice.
    /// - Parameters:
    ///   - isForced: also without the node that leaves, should it not answer.
    ///   - gone: nor these.
    /// - Returns: what was lost on the way, where something was.
    func change(_ request: ChangeRequest, isForced: Bool, without gone: Set<NodeID>) async throws(OperatorError)
        -> String?
    /// Climbs down from the change that is under way, and returns once it is over.
    func abortChange() async throws(OperatorError)
    /// Drops this node's pairs; returns how many.
    func clear() async throws(OperatorError) -> Int
    /// This node's pairs, in batches, each awaited before the next is read.
    func forEachPair(_ body: @Sendable ([(key: Key, value: ByteBuffer?)]) async throws -> Void) async throws
    /// A part of all pairs of the ring.
    func part(_ query: PairListing.Query) async throws -> ListingMerge
    /// The JSON object of `GET /status`.
    func status() async -> ByteBuffer
    /// The text of `GET /metrics`.
    func metrics() async -> ByteBuffer
    /// What the change would move, as JSON; nothing is changed.
    func plan(_ request: ChangeRequest) async throws(OperatorError) -> ByteBuffer
    /// What each of these nodes has of a key, as JSON; it takes less than a second, whoever does not answer.
    /// - Parameter here: asks this node's own memcached.
    func copies(
        of key: Key, at holders: [NodeID], here: @escaping @Sendable () async -> Result<Envelope?, OperationFailure>
    ) async -> ByteBuffer
    /// Tells of the ring and its nodes, in server-sent events, until `tell` says that it is enough, or throws.
    func watchRing(_ tell: @Sendable (ByteBuffer) async throws -> Bool) async throws
    /// `POST /peer/<name>`, between the nodes themselves: JSON in, JSON out.
    func peerCall(_ name: String, _ body: ByteBuffer) async throws(PeerCallError) -> ByteBuffer
}

/// Why a call between nodes was not answered.
package enum PeerCallError: Error {
    case unknownCall
    case unreadable(String)
    /// It was begun, and may have had its effect.
    case failed(String)
}

/// Where work that takes long is handed to, away from the event loop.
package protocol OperatorTasks: Sendable {
    /// False where too much of its kind runs already, or the worker is leaving.
    func run(_ kind: OperatorTaskKind, _ work: @escaping @Sendable () async -> Void) -> Bool
}

/// Each kind has places of its own, so that none keeps the others from being done.
package enum OperatorTaskKind: Hashable, Sendable, CaseIterable {
    case request
    /// A client's batch.
    case batch
    /// A look at other nodes for the ring's page, by whoever may look: a key's copies, what a change would move.
    case look
    /// Another node's call.
    case peerCall
    /// All pairs: takes long, and memory.
    case stream
    /// Of whoever looks at the ring's page: goes on for as long as it is open.
    case watch
}
