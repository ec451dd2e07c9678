// SPDX-License-Identifier: Apache-2.0

import HashRing
import Testing

/// Rings, move plans and routing tables against what the definitions say, one slot after the other.
struct RingTests {
    /// `count` seats of up to `nodes` nodes; the seed fixes them.
    static func ring(seed: Int, seats count: Int, nodes: Int) -> Ring {
        var state = UInt64(seed) &* 0x9E37_79B9_7F4A_7C15 | 1
        func next(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        var taken: Set<Int> = []
        while taken.count < count { taken.insert(next(8) == 0 ? [0, 9999, 1, 9998][next(4)] : next(10_000)) }
        let seats = taken.sorted().compactMap { value -> Ring.Seat? in
            guard let position = Position(value), let node = NodeID("10.0.0.\(next(nodes) + 1):5000") else {
                return nil
            }
            return Ring.Seat(position: position, node: node)
        }
        return Ring(seats: seats.reversed()) ?? .empty
    }

    private static func naivePreferenceList(_ ring: Ring, _ slot: Slot, _ count: Int) -> [NodeID] {
        let clockwise =
            ring.seats.filter { $0.position.value >= slot.value } + ring.seats.filter { $0.position.value < slot.value }
        var list: [NodeID] = []
        for seat in clockwise where !list.contains(seat.node) && list.count < count { list.append(seat.node) }
        return list
    }

    @Test(arguments: 0..<12)
    func preferenceLists(seed: Int) {
        let ring = RingTests.ring(seed: seed, seats: seed + 1, nodes: seed / 2 + 1)
        for slot in Slot.all {
            let lists = (0...4).map { ring.preferenceList(of: slot, count: $0) }
            #expect(lists == (0...4).map { RingTests.naivePreferenceList(ring, slot, $0) })
            #expect(ring.owner(of: slot) == lists[1].first)
        }
    }

    @Test func theOriginalsRing() throws {
        let nodes = try ["127.0.0.11:5000", "127.0.0.12:5000"].map { try #require(NodeID($0)) }
        let positions = try [3000, 8000].map { try #require(Position($0)) }
        let ring = try #require(Ring(seats: zip(positions, nodes).map { Ring.Seat(position: $0, node: $1) }))
        for (key, node) in [("roof", 0), ("ship", 0), ("finger", 1), ("gate", 1)] {
            #expect(ring.owner(of: Slot(ofKey: Array(key.utf8))) == nodes[node])
        }
    }

    @Test func anEmptyRingOwnsNothing() throws {
        let slot = try #require(Slot(7))
        #expect(Ring.empty.owner(of: slot) == nil && Ring.empty.preferenceList(of: slot, count: 3) == [])
        #expect(Ring(seats: [])?.isEmpty == true)
    }

    @Test func aPositionIsTakenOnce() throws {
        let ring = RingTests.ring(seed: 3, seats: 3, nodes: 3)
        let node = try #require(NodeID("10.9.9.9:1"))
        #expect(ring.adding(node, at: ring.seats[1].position) == nil)
        #expect(Ring(seats: ring.seats + [ring.seats[0]]) == nil)
    }

    @Test(arguments: 0..<12)
    func segmentsCoverEverySlotOnce(seed: Int) {
        let rings = [
            RingTests.ring(seed: seed, seats: 4, nodes: 3), RingTests.ring(seed: seed + 50, seats: 3, nodes: 3),
        ]
        let segments = Ring.segments(of: rings)
        #expect(segments.flatMap { Array($0) } == Array(0..<10_000))
        for segment in segments {
            for ring in rings {
                #expect(
                    Set(segment.compactMap { Slot(Int($0)).map { ring.preferenceList(of: $0, count: 3) } }).count == 1)
            }
        }
    }

    @Test(arguments: 0..<6, RingTransition.Step.allCases)
    func routingTables(seed: Int, step: RingTransition.Step) throws {
        let from = RingTests.ring(seed: seed, seats: 3, nodes: 3)
        let to = RingTests.ring(seed: seed + 7, seats: 4, nodes: 4)
        let replicas = seed % 3 + 1
        let isAborted = step == .retreating || (step == .cleaning && seed % 2 == 0)
        var transition = RingTransition(id: "t", change: .remove(node: from.nodes[0]), from: from, to: to, step: step)
        if isAborted { transition.abortReason = "for the test" }
        let ring = transition.rule.reads == .to ? to : from
        let document = RingDocument(epoch: Epoch(5), ring: ring, replicas: replicas, transition: transition)
        let table = RoutingTable(document)
        for slot in Slot.all {
            let old = ReplicaGroup(members: from.preferenceList(of: slot, count: replicas))
            let new = ReplicaGroup(members: to.preferenceList(of: slot, count: replicas))
            let current = isAborted ? old : new
            let expected: Placement =
                switch step {
                case _ where step != .cleaning && old == new: Placement(reads: [old], writes: [old], isMoving: false)
                case .copying, .retreating: Placement(reads: [old], writes: [old, new], isMoving: true)
                case .crossing: Placement(reads: [old, new], writes: [old, new], isMoving: true)
                case .settling: Placement(reads: [new], writes: [old, new], isMoving: true)
                case .cleaning: Placement(reads: [current], writes: [current], isMoving: false)
                }
            #expect(table[slot] == expected)
            #expect(table.placements[table.placementIndex(of: slot)] == expected)
        }
        #expect(Set(table.placements).count == table.placements.count)
    }

    @Test(arguments: [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
    func quorumsAreMajorities(_ members: Int, _ quorum: Int) {
        let nodes = (1...members).compactMap { NodeID("10.0.0.\($0):1") }
        #expect(ReplicaGroup(members: nodes).quorum == quorum)
    }
}
