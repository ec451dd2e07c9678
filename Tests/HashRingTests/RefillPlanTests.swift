// SPDX-License-Identifier: Apache-2.0

import HashRing
import Testing

struct RefillPlanTests {
    private let nodes = (1...6).compactMap { NodeID("10.0.0.\($0):5000") }

    private func document(_ count: Int, replicas: Int) -> RingDocument {
        let seats = nodes.prefix(count).enumerated().compactMap { index, node in
            Position(index * 1000).map { Ring.Seat(position: $0, node: node) }
        }
        return RingDocument(epoch: Epoch(1), ring: Ring(seats: seats) ?? .empty, replicas: replicas)
    }

    @Test func whoHoldsAloneHasNobodyToAsk() {
        #expect(RefillPlan(document(3, replicas: 1), node: nodes[0]).isEmpty)
        #expect(RefillPlan(document(1, replicas: 3), node: nodes[0]).isEmpty)
        #expect(RefillPlan(document(3, replicas: 3), node: nodes[5]).isEmpty)
    }

    /// One acknowledgement of two may have been the lost memory's, the other may be either of the rest.
    @Test func threeReplicasNeedBothOthers() {
        let plan = RefillPlan(document(3, replicas: 3), node: nodes[0])
        #expect(plan.sources == [nodes[1], nodes[2]])
        #expect(plan.verdict(whole: [nodes[1]], recovering: []) == .incomplete)
        #expect(plan.verdict(whole: [nodes[1], nodes[2]], recovering: []) == .refilled)
        #expect(plan.verdict(whole: [nodes[1]], recovering: [nodes[2]]) == .refilledFromRemains)
    }

    @Test(arguments: [(2, 1), (3, 2), (4, 2), (5, 3)])
    func soManyOthersThatNoMajorityMissesThem(_ replicas: Int, _ needed: Int) {
        let plan = RefillPlan(document(replicas, replicas: replicas), node: nodes[0])
        let others = nodes[1..<replicas]
        #expect(plan.verdict(whole: Set(others.prefix(needed - 1)), recovering: []) == .incomplete)
        #expect(plan.verdict(whole: Set(others.prefix(needed)), recovering: []) == .refilled)
    }

    /// With five nodes and three replicas a node shares slots with four others, two at a time.
    @Test func eachGroupCountsByItself() {
        let plan = RefillPlan(document(5, replicas: 3), node: nodes[0])
        #expect(plan.sources == Set(nodes[1...4]))
        #expect(plan.verdict(whole: [nodes[1], nodes[2], nodes[3]], recovering: []) == .incomplete)
        #expect(plan.verdict(whole: [nodes[1], nodes[2], nodes[3], nodes[4]], recovering: []) == .refilled)
    }

    @Test func allOthersAreFirstAsOften() throws {
        let document = document(5, replicas: 3)
        let shared = RefillPlan.slots(in: document) { $0.members.contains(nodes[0]) }
        var slots: [NodeID: Int] = [:]
        for slot in shared {
            let slot = try #require(Slot(Int(slot)))
            let first = try #require(RefillPlan.firstSource(of: slot, for: nodes[0], in: document))
            #expect(first != nodes[0] && RefillPlan.group(of: slot, in: document).members.contains(first))
            slots[first, default: 0] += 1
        }
        for node in nodes[1...4] {
            let both = RefillPlan.slots(in: document) { $0.members.contains(nodes[0]) && $0.members.contains(node) }
            #expect(abs((slots[node] ?? 0) - both.count / 2) <= 2)
        }
        #expect(
            RefillPlan.firstSource(of: try #require(Slot(0)), for: nodes[0], in: self.document(1, replicas: 3)) == nil)
    }

    @Test func duringAChangeThoseWhoHeldItBeforeAreAsked() {
        var document = document(3, replicas: 3)
        guard let slot = Slot(0), let to = Position(500).flatMap({ document.ring.adding(nodes[3], at: $0) }) else {
            return
        }
        document.transition = RingTransition(
            id: "c", change: .remove(node: nodes[0]), from: document.ring, to: to, step: .settling)
        document.ring = to
        #expect(RefillPlan.group(of: slot, in: document).members == [nodes[0], nodes[1], nodes[2]])
        document.transition?.step = .cleaning
        #expect(RefillPlan.group(of: slot, in: document).members == [nodes[0], nodes[3], nodes[1]])
    }
}
