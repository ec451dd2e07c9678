// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue

/// All that a run derives from its seed before it begins.
struct Options {
    var seed: UInt64
    var mutant: Mutant?
    var isTraced = false

    /// The first two or three are in the ring from the start, the last one stands by.
    let nodes: [NodeID]
    let ring: Ring
    let skews: [Int]
    let workers: Int
    let keys: [StoredKey]
    let clients: Int
    let seconds: Int
    let faults: Int
    var slowMessagePercent: Double
    var slowStorePercent: Double
    var lostMessagePercent: Double
    let emptiesMemories: Bool
    let changes: Int
    let aborts: Int

    private static let positions = [1000, 3000, 5000, 8000]

    init(seed: UInt64, mutant: Mutant? = nil) {
        var random = SeededGenerator(seed: seed ^ 0xABCD)
        self.seed = seed
        self.mutant = mutant
        let count = random.chance(50) ? 3 : 4
        nodes = (0..<count).compactMap { NodeID("127.0.0.1\($0 + 1):5000") }
        let seats = nodes.dropLast().enumerated().compactMap { index, node in
            Position(Options.positions[index]).map { Ring.Seat(position: $0, node: node) }
        }
        ring = Ring(seats: seats) ?? .empty
        let isSkewed = random.chance(50)
        skews = nodes.map { _ in
            guard isSkewed else { return 0 }
            return (random.chance(20) ? 1 : 0) * 3_600_000_000 + random.pick(-5_000_000...5_000_000)
        }
        workers = random.pick(1...2)
        keys = (0..<6).compactMap { Key("k\(random.pick(0...9999))-\($0)").map { StoredKey($0) } }
        clients = random.pick(3...8)
        seconds = random.pick(4...10)
        faults = random.chance(20) ? 0 : random.pick(1...8)
        slowMessagePercent = random.pick([0, 0.2, 2])
        slowStorePercent = random.pick([0, 1, 4])
        lostMessagePercent = random.pick([0, 0, 0.5, 3])
        emptiesMemories = random.chance(50)
        changes = random.pick(1...4)
        aborts = random.pick([0, 0, 1, 2])
    }

    var document: RingDocument {
        RingDocument(epoch: Epoch(1), ring: ring, replicas: 1, standbys: nodes.suffix(1))
    }
}

/// Routing tables, made once for each ring or pair of rings.
final class Routes {
    private struct Shape: Hashable {
        let ring: Ring
        let replicas: Int
        let from: Ring?
        let to: Ring?
        let step: RingTransition.Step?
        let isAborted: Bool
    }

    private var tables: [Shape: RoutingTable] = [:]

    func table(_ document: RingDocument) -> RoutingTable {
        let transition = document.transition
        let shape = Shape(
            ring: document.ring, replicas: document.replicas, from: transition?.from, to: transition?.to,
            step: transition?.step, isAborted: transition?.abortReason != nil)
        if let table = tables[shape] { return table }
        let table = RoutingTable(document)
        tables[shape] = table
        return table
    }
}
