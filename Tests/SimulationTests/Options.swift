// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import TestSupport

/// All that a run derives from its seed before it begins.
struct Options {
    var seed: UInt64
    var mutant: Mutant?
    var isTraced = false

    /// The first two or three are in the ring from the start, the last one stands by.
    let nodes: [NodeID]
    let ring: Ring
    let replicas: Int
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
    /// Whether messages get lost as well as memories: what a memory held may be what others have not got.
    let losesMuch: Bool
    let changes: Int
    let aborts: Int
    /// Whether a member is gone for good, and the ring has to go on without it.
    let losesHost: Bool
    /// Whether clients also write under conditions.
    let hasConditions: Bool

    /// Whether a client lists all pairs, again and again.
    let hasListings: Bool
    /// Of writes that delete.
    let deletePercent: Double

    private static let positions = [1000, 3000, 5000, 8000, 6500]

    init(seed: UInt64, mutant: Mutant? = nil) {
        var random = SeededGenerator(seed: seed ^ 0xABCD)
        self.seed = seed
        self.mutant = mutant
        // (From a seed of its own, so that each run with one replica stays what it was.)
        var draws = SeededGenerator(seed: seed ^ 0x5EED)
        let drawn = draws.chance(50) ? 1 : draws.pick(2...3)
        replicas = mutant?.replicas ?? drawn
        // (Also fewer than replicas, and one to join them: groups grow and shrink.)
        let count = replicas == 1 ? random.chance(50) ? 3 : 4 : draws.pick(3...5)
        nodes = (0..<count).compactMap { NodeID("127.0.0.1\($0 + 1):5000") }
        let seats = nodes.dropLast().enumerated().compactMap { index, node in
            Position(Options.positions[index]).map { Ring.Seat(position: $0, node: node) }
        }
        ring = Ring(seats: seats) ?? .empty
        let isSkewed = random.chance(50)
        var drawnSkews = nodes.map { _ in
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
        losesMuch = mutant?.replicas ?? 1 > 1 || replicas > 1 && draws.chance(30)
        emptiesMemories = random.chance(50) || losesMuch
        if losesMuch { lostMessagePercent = 3 }
        changes = random.pick(1...4)
        aborts = random.pick([0, 0, 1, 2])
        losesHost = replicas > 1 && draws.chance(30)
        hasListings = mutant?.isAboutListings ?? draws.chance(30)
        // (What is listed has to be there.)
        deletePercent = hasListings ? 3 : 10
        hasConditions = mutant?.isAboutConditions ?? draws.chance(40)
        // (A host whose clock is an hour ahead creates nothing under a condition: it refuses writes.)
        if hasConditions { drawnSkews = drawnSkews.map { $0 > 1_000_000_000 ? $0 - 3_600_000_000 : $0 } }
        skews = drawnSkews
    }

    var document: RingDocument {
        RingDocument(epoch: Epoch(1), ring: ring, replicas: replicas, standbys: nodes.suffix(1))
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
        let absent: [NodeID]
    }

    private var tables: [Shape: RoutingTable] = [:]

    func table(_ document: RingDocument) -> RoutingTable {
        let transition = document.transition
        let shape = Shape(
            ring: document.ring, replicas: document.replicas, from: transition?.from, to: transition?.to,
            step: transition?.step, isAborted: transition?.abortReason != nil,
            absent: transition?.absent ?? [])
        if let table = tables[shape] { return table }
        let table = RoutingTable(document)
        tables[shape] = table
        return table
    }
}
