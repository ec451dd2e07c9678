// SPDX-License-Identifier: Apache-2.0

import HashRing
import TestSupport
import Testing

/// After a ring change, whatever a majority of a group held is held by a majority of the group that comes after it.
@Suite struct MovePlanTests {
    private static let nodes = (1...7).compactMap { NodeID("10.0.0.\($0):5000") }

    /// A change, the ring that it changes, and who is gone for good.
    private struct Case {
        let change: RingChange
        let from: Ring
        let to: Ring
        var absent: [NodeID] = []
    }

    private static func cases(seed: Int) throws -> [Case] {
        var random = SeededGenerator(seed: UInt64(seed))
        let count = seed % 6 + 1
        let positions = (0..<(count + 2) * 2).compactMap { Position($0 * 611 + random.pick(0...600)) }
        let seats = positions.prefix(count * 2).enumerated().map {
            Ring.Seat(position: $0.element, node: nodes[$0.offset % count])
        }
        let from = try #require(Ring(seats: seats))
        let new = nodes[count]
        var changes: [RingChange] = [
            .add(node: new, positions: [positions[count * 2]]), .add(node: new, positions: Array(positions.suffix(2))),
            .replace(old: nodes[0], new: new),
        ]
        if count > 1 { changes.append(.remove(node: nodes[random.pick(0...count - 1)])) }
        return try changes.flatMap { change in
            let to = try change.applied(to: from)
            var cases = [Case(change: change, from: from, to: to)]
            cases += (from.nodes + [new]).map { Case(change: change, from: from, to: to, absent: [$0]) }
            return cases
        }
    }

    @Test(arguments: 0..<30, 1...5)
    func majoritiesSurvive(seed: Int, replicas: Int) throws {
        for this in try MovePlanTests.cases(seed: seed) {
            let plan = MovePlan(from: this.from, to: this.to, replicas: replicas, absent: this.absent)
            var moving = 0
            for slot in Slot.all where slot.value % 97 == 0 {
                let old = this.from.preferenceList(of: slot, count: replicas)
                let new = this.to.preferenceList(of: slot, count: replicas)
                guard old != new else {
                    for node in MovePlanTests.nodes { #expect(plan.gainers(of: slot, from: node).isEmpty) }
                    continue
                }
                moving += 1
                let before = ReplicaGroup(members: old)
                for holders in MovePlanTests.subsets(of: old) where holders.count >= before.quorum {
                    let left = holders.filter { !this.absent.contains($0) }
                    // (What only those held who are gone is lost.)
                    if left.isEmpty { continue }
                    let gained = left.flatMap { plan.gainers(of: slot, from: $0) }
                    let holdersAfter = Set(left + gained).intersection(new)
                    let wanted = ReplicaGroup(members: new, absent: this.absent).quorum
                    let comment: Comment = "\(this.change), \(old) to \(new) without \(this.absent): held by \(holders)"
                    #expect(holdersAfter.count >= wanted, comment)
                    #expect(holdersAfter.isDisjoint(with: this.absent), comment)
                }
                #expect(plan.holders.isSuperset(of: Set(old + new).subtracting(this.absent)))
                #expect(plan.heirs.isSuperset(of: Set(new).subtracting(this.absent)))
            }
            #expect(plan.holders.isDisjoint(with: this.absent) && plan.heirs.isDisjoint(with: this.absent))
            #expect(Set(plan.losers + plan.gainers).isDisjoint(with: this.absent))
            #expect(moving == 0 || !plan.losers.isEmpty, "somebody's word makes the documents real")
        }
    }

    @Test(arguments: 0..<12)
    func movesAreInOrderAndMaximal(seed: Int) throws {
        for this in try MovePlanTests.cases(seed: seed) {
            let plan = MovePlan(from: this.from, to: this.to, replicas: 3, absent: this.absent)
            for (left, right) in zip(plan.moves, plan.moves.dropFirst()) {
                #expect(left.slots.upperBound < right.slots.lowerBound)
                let isJoined = left.slots.upperBound + 1 == right.slots.lowerBound
                #expect(!isJoined || left.losers != right.losers || left.gainers != right.gainers)
            }
        }
    }

    /// One copy, gone with its node: the slots are counted, and somebody else answers for them.
    @Test func onlyCopiesThatAreGoneAreCounted() throws {
        let nodes = MovePlanTests.nodes
        let seats = [0, 1, 2].compactMap { index in
            Position(index * 3000 + 999).map { Ring.Seat(position: $0, node: nodes[index]) }
        }
        let from = try #require(Ring(seats: seats))
        let to = from.removing(nodes[1])
        let plan = MovePlan(from: from, to: to, replicas: 1, absent: [nodes[1]])
        #expect(plan.lostSlotCount == 3000)
        #expect(plan.losers == [nodes[2]] && plan.gainers.isEmpty)
        #expect(MovePlan(from: from, to: to, replicas: 1).lostSlotCount == 0)
        #expect(MovePlan(from: from, to: to, replicas: 2, absent: [nodes[1]]).lostSlotCount == 0)
    }

    /// Two nodes that hold everything, and a third that holds it too: who leaves may have been one of a bare majority.
    @Test func whoLeavesAShrinkingGroupGivesToThoseThatStay() throws {
        let nodes = MovePlanTests.nodes
        let seats = [0, 1, 2].compactMap { index in
            Position(index * 3000 + 999).map { Ring.Seat(position: $0, node: nodes[index]) }
        }
        let from = try #require(Ring(seats: seats))
        let plan = MovePlan(from: from, to: from.removing(nodes[1]), replicas: 3)
        #expect(plan.losers == [nodes[1]])
        #expect(plan.gainers == [nodes[0], nodes[2]])
        #expect(plan.moves.allSatisfy { $0.isCatchUp })
        #expect(plan.slotCount == Slot.count)
    }

    private static func subsets(of nodes: [NodeID]) -> [[NodeID]] {
        (0..<(1 << nodes.count)).map { mask in nodes.indices.filter { mask & (1 << $0) != 0 }.map { nodes[$0] } }
    }
}
