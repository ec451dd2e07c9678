// SPDX-License-Identifier: Apache-2.0

internal import HashRing
package import KeyValue
internal import Memcached
package import NIOCore

/// All of a host's pairs, looked at for whoever asks.
extension HostPairs {
    private static let restPause = Duration.milliseconds(1)

    /// Hands on every pair that a client could read, in batches: not those that are deleted or expired. Of a large
    /// value (it is in chunks, maybe elsewhere) there is the key alone.
    /// - Parameter wallMilliseconds: this host's wall clock.
    package func forEachPair(
        wallMilliseconds: @Sendable () -> UInt64, _ body: ([(key: Key, value: ByteBuffer?)]) async throws -> Void
    ) async throws {
        guard let generation = try await stamp()?.generation else { throw Failure.overtaken }
        try await forEachBatch(in: generation) { batch in
            let now = wallMilliseconds()
            try await body(
                batch.compactMap { key, record in
                    guard !record.isGone(atMilliseconds: now),
                        let name = record.clientKey(under: key)
                    else { return nil }
                    return (name, record.isManifest ? nil : record.value)
                })
        }
    }

    /// What this node has behind a mark, in the keys' order, of the slots on which it answers reads.
    /// - Parameters:
    ///   - stamp: `overtaken` is thrown where the host does not stand on it throughout.
    ///   - limit: records, at most.
    ///   - most: bytes of them, where values are wanted, too; nil: they are not.
    func list(
        _ table: RoutingTable, of node: NodeID, under stamp: HostStamp, after mark: ListingMark, prefix: [UInt8],
        limit: Int, bytes most: Int?
    ) async throws -> HostListing {
        let isMine = table.placements.map { placement in placement.reads.contains { $0.members.contains(node) } }
        let rest = StoredKey.rest(ofPrefix: prefix)
        var after = mark
        while let first = after.firstSlot {
            // (A part of all keys is a part of the first slots; of those with a prefix, few may be in any.)
            let scan = try await scanner.scan(keys: prefix.isEmpty ? 2 * Limits.listedPairs : nil) {
                $0 >= first && isMine[table.placementIndex(of: $0)]
            }
            let keys = scan.keys.inOrder(after: after, prefix: rest)
            var found: [ListedPair] = []
            var bytes = 0
            var start = 0
            while start < keys.count {
                try Task.checkCancellation()
                let end = min(keys.endOfHandoffBatch(from: start), start + limit - found.count)
                let batch = (start..<end).map { keys[$0] }
                let records = try await perform(batch.map { .read($0) }, under: stamp).map { try $0.read() }
                for (key, record) in zip(batch, records) {
                    guard let record else { continue }
                    let pair = ListedPair(
                        key: key, record: most == nil ? record.head : record, valueBytes: record.valueLength)
                    guard !key.isDigest || pair.clientKey?.bytes.starts(with: prefix) ?? false else { continue }
                    found.append(pair)
                    bytes += pair.record.buffer.readableBytes
                }
                start = end
                if let last = batch.last, found.count >= limit || bytes >= most ?? .max {
                    return HostListing(pairs: found, through: ListingMark(through: last))
                }
                // Clients come first.
                try await Task.sleep(for: HostPairs.restPause)
            }
            guard let last = scan.coveredThrough else { return HostListing(pairs: found, through: .end) }
            after = ListingMark(through: last)
            if !found.isEmpty { return HostListing(pairs: found, through: after) }
        }
        return HostListing(pairs: [], through: .end)
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
            try await Task.sleep(for: HostPairs.restPause)
        }
        return digests
    }
}
