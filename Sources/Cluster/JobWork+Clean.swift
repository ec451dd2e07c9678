// SPDX-License-Identifier: Apache-2.0

internal import HashRing
private import KeyValue
internal import Memcached

/// Deleting: what is not this node's, and everything.
extension JobWork {
    /// memcached gives an item that it moves to another page a new token, as if it were overwritten: what a deletion
    /// left is looked for again, so many times.
    private static let scansAgain = 8

    func clean(_ document: RingDocument, _ stamp: HostStamp, _ tally: Tally) async throws {
        let table = RoutingTable(document)
        let foreign = Set(Slot.all.filter { !table[$0].involves(node) }.map(\.value))
        var lowest = 0
        var scansAgain = JobWork.scansAgain
        while lowest < Slot.count, !foreign.isEmpty {
            let from = UInt16(lowest)
            let scan = try await pairs.scanner.scan { $0.value >= from && foreign.contains($0.value) }
            await tally.found(scan.keys.count)
            let left = try await delete(scan.keys, stamp, tally)
            if left > 0, scansAgain > 0 {
                scansAgain -= 1
                continue
            }
            guard let last = scan.coveredThrough else { break }
            lowest = Int(last.value) + 1
        }
    }

    /// Deletes while this host stands on the stamp: each chunk counts as an operation of its epoch, so that no newer
    /// document is adopted in the middle of it.
    /// - Returns: how many were not deleted, because they are no longer what was found.
    private func delete(_ keys: ScannedKeys, _ stamp: HostStamp, _ tally: Tally) async throws -> Int {
        var start = 0
        var left = 0
        while start < keys.count {
            try Task.checkCancellation()
            let end = min(start + Limits.deletedAtOnce, keys.count)
            left += try await pairs.whileStanding(on: stamp) { try await bulkDelete.delete(keys, in: start..<end) }
            try await failpoints.hit("ring.job.clean.batch")
            await tally.done(pairs: end - start, moved: end - start, bytes: 0)
            start = end
        }
        return left
    }

    /// Drops every pair of this host; returns how many. Not during a ring change: what it has brought here is nowhere
    /// else soon, and what it takes from here would come back.
    package func clear() async throws -> Int {
        guard let view = try await pairs.view() else { throw HostPairs.Failure.overtaken }
        if view.document?.transition != nil { throw Failure.ringChanges }
        let stamp = view.stamp
        let tally = Tally(checkpoint: nil)
        var count = 0
        var lowest = 0
        var scansAgain = JobWork.scansAgain
        while lowest < Slot.count {
            let from = UInt16(lowest)
            let scan = try await pairs.scanner.scan { $0.value >= from }
            if scan.keys.count > 0 {
                // This worker may be the last to hear of a change; what the others wrote since then is not in this
                // scan.
                _ = try await pairs.perform([.read(scan.keys[0])], under: stamp)
            }
            let left = try await delete(scan.keys, stamp, tally)
            count += scan.keys.count - left
            if left > 0, scansAgain > 0 {
                scansAgain -= 1
                continue
            }
            guard let last = scan.coveredThrough else { break }
            lowest = Int(last.value) + 1
        }
        return count
    }
}
