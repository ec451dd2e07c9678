// SPDX-License-Identifier: Apache-2.0

internal import HashRing
package import KeyValue
private import Memcached
package import NIOCore

/// All of a host's pairs, looked at for whoever asks.
extension HostPairs {
    private static let digestPause = Duration.milliseconds(1)

    /// Hands on every pair that a client could read, in batches: not those that are deleted or expired.
    /// - Parameter wallMilliseconds: this host's wall clock.
    package func forEachPair(
        wallMilliseconds: @Sendable () -> UInt64, _ body: ([(key: Key, value: ByteBuffer)]) async throws -> Void
    ) async throws {
        guard let generation = try await stamp()?.generation else { throw Failure.overtaken }
        try await forEachBatch(in: generation) { batch in
            let now = wallMilliseconds()
            try await body(
                batch.compactMap { key, record in
                    guard !record.isGone(atMilliseconds: now),
                        let name = record.keyInside.flatMap({ Key(Array($0.readableBytesView)) }) ?? key.clientKey
                    else { return nil }
                    return (name, record.value)
                })
        }
    }

    /// A digest of each slot that this node holds together with others, without what is bound to go.
    func digests(
        _ document: RingDocument, in generation: Generation, of node: NodeID, wallMilliseconds: @Sendable () -> UInt64
    ) async throws -> SlotDigests {
        let shared = RefillPlan.slots(in: document) { $0.members.count > 1 && $0.members.contains(node) }
        var digests = SlotDigests()
        try await forEachBatch(in: generation, where: { shared.contains($0.value) }) { batch in
            let now = wallMilliseconds()
            for (key, record) in batch where !Retention.isBoundToGo(record, atMilliseconds: now) {
                digests.add(key, record.version)
            }
            // Clients come first.
            try await Task.sleep(for: HostPairs.digestPause)
        }
        return digests
    }
}
