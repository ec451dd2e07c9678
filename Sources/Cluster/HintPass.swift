// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue
package import Memcached
private import NIOCore

/// One pass over the hints that this host keeps: gives each to all members of its slot's group, and deletes those that
/// all have acknowledged. It may be cut off anywhere, and be done by two workers at once: what is given again is
/// applied where it is newer, and what is deleted is what was given, by its cas token.
package struct HintPass: Sendable {
    package private(set) var count = HintCount()

    package struct Dependencies: Sendable {
        package let node: NodeID
        package let pairs: HostPairs
        package let bulkDelete: BulkDelete
        package let clock: WorkerClock
        package let failpoints: Failpoints
        /// Has another node do the operations under this stamp's ring; an outcome for each.
        package let send: @Sendable (NodeID, [Operation], HostStamp) async throws -> [Outcome]

        package init(
            node: NodeID, pairs: HostPairs, bulkDelete: BulkDelete, clock: WorkerClock, failpoints: Failpoints,
            send: @escaping @Sendable (NodeID, [Operation], HostStamp) async throws -> [Outcome]
        ) {
            self.node = node
            self.pairs = pairs
            self.bulkDelete = bulkDelete
            self.clock = clock
            self.failpoints = failpoints
            self.send = send
        }
    }

    /// One of a batch.
    private struct Hint {
        /// Among the scanned keys.
        let index: Int
        let key: StoredKey
        let record: Envelope
        let members: [NodeID]
        var holders = 0
    }

    private let with: Dependencies
    private let table: RoutingTable
    private let stamp: HostStamp
    /// Nodes that are not asked (again) in this pass.
    private var away: Set<NodeID>

    /// - Parameter silent: nodes that are known not to answer.
    package init(_ dependencies: Dependencies, _ table: RoutingTable, under stamp: HostStamp, silent: Set<NodeID>) {
        self.with = dependencies
        self.table = table
        self.stamp = stamp
        self.away = silent
    }

    /// - Throws: where ring or memory change meanwhile, or memcached does not answer.
    package mutating func run() async throws {
        var lowest = 0
        while lowest < Slot.count {
            let from = UInt16(lowest)
            let scan = try await with.pairs.scanner.scan(.hint) { $0.value >= from }
            count.left.count += scan.keys.count
            count.left.bytes += scan.keys.itemBytes
            var start = 0
            while start < scan.keys.count {
                try Task.checkCancellation()
                let end = scan.keys.endOfHandoffBatch(from: start)
                let began = ContinuousClock.now
                try await handOn(scan.keys, start..<end)
                let took = ContinuousClock.now - began
                let bytes = scan.keys.picking(start..<end).itemBytes
                let least = Duration.seconds(Double(bytes) / Double(Limits.hintBytesPerSecond))
                try await Task.sleep(for: max(took, least - took))
                start = end
            }
            guard let last = scan.coveredThrough else { break }
            lowest = Int(last.value) + 1
        }
    }

    private mutating func handOn(_ keys: ScannedKeys, _ range: Range<Int>) async throws {
        // What nobody can take now is not even read.
        let indices = range.filter { index in
            let placement = table[keys[index].slot]
            return !placement.isMoving && placement.writes[0].members.contains { !away.contains($0) }
        }
        guard !indices.isEmpty else { return }
        let records = try await with.pairs.records(of: indices.map { keys[$0] }, in: stamp.generation)
        let now = with.clock.wallMilliseconds
        var hints: [Hint] = []
        var tooOld: [Int] = []
        for (index, record) in zip(indices, records) {
            guard let record else { continue }
            if Retention.isTooOldToHandOn(record, atMilliseconds: now) {
                tooOld.append(index)
            } else {
                let key = keys[index]
                hints.append(
                    Hint(index: index, key: key.pair, record: record, members: table[key.slot].writes[0].members))
            }
        }
        try await give(&hints)
        try await with.failpoints.hit("hints.batch")
        count.delivered += try await delete(keys, hints.filter { $0.holders == $0.members.count }.map(\.index))
        count.dropped += try await delete(keys, tooOld)
    }

    /// To all members that are there, each its batch, at the same time.
    private mutating func give(_ hints: inout [Hint]) async throws {
        var places: [NodeID: [Int]] = [:]
        for (place, hint) in hints.enumerated() {
            for member in hint.members where !away.contains(member) { places[member, default: []].append(place) }
        }
        let answers = try await withThrowingTaskGroup(of: (NodeID, [Outcome]?).self) { group in
            for (member, places) in places {
                let operations = places.map { Operation.apply(hints[$0].key, hints[$0].record) }
                group.addTask { [with, stamp] in (member, try await HintPass.send(operations, to: member, with, stamp))
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        for (member, outcomes) in answers {
            guard let outcomes, let places = places[member], outcomes.count == places.count else {
                away.insert(member)
                continue
            }
            for (place, outcome) in zip(places, outcomes) {
                if case .applied = outcome { hints[place].holders += 1 }
            }
        }
    }

    /// Nil where the member does not answer, or not under this ring: it is asked again in the next pass. (Where the
    /// ring has moved on here too, the pass ends by itself.)
    private static func send(
        _ operations: [Operation], to member: NodeID, _ with: Dependencies, _ stamp: HostStamp
    ) async throws -> [Outcome]? {
        if member == with.node { return try await with.pairs.perform(operations, under: stamp) }
        do {
            return try await with.send(member, operations, stamp)
        } catch is PeerCaller.Failure {
            return nil
        }
    }

    /// - Returns: how many are gone; those that were overwritten since stay.
    private mutating func delete(_ keys: ScannedKeys, _ indices: [Int]) async throws -> Int {
        guard !indices.isEmpty else { return 0 }
        let done = keys.picking(indices)
        let kept = try await with.pairs.whileStanding(on: stamp) {
            try await with.bulkDelete.delete(done, in: 0..<done.count)
        }
        let gone = done.count - kept
        count.left.count -= gone
        count.left.bytes = max(count.left.bytes - (kept == 0 ? done.itemBytes : 0), 0)
        return gone
    }
}
