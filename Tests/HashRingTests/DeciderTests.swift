// SPDX-License-Identifier: Apache-2.0

import HashRing
import Testing

/// Who decides on conditional writes, from rung to rung.
struct DeciderTests {
    private static let nodes = (1...4).compactMap { NodeID("10.0.0.\($0):5000") }
    private static let slot = Slot(1000)!

    private static func ring(_ seats: [(Int, Int)]) -> Ring {
        Ring(seats: seats.map { Ring.Seat(position: Position($0.0)!, node: nodes[$0.1]) })!
    }

    /// Of slot 1000, which the fourth node gets as its first owner, or as its last.
    private static func deciders(_ steps: [RingTransition.Step], at position: Int, replicas: Int) -> [NodeID?] {
        let from = ring([(2000, 0), (5000, 1), (8000, 2)])
        let to = ring([(2000, 0), (5000, 1), (8000, 2), (position, 3)])
        return steps.map { step in
            let transition = RingTransition(
                id: "x", change: .add(node: nodes[3], positions: [Position(position)!]), from: from, to: to, step: step)
            let document = RingDocument(
                epoch: Epoch(1), ring: step == .settling || step == .cleaning ? to : from, replicas: replicas,
                transition: transition)
            return RoutingTable(document)[slot].decider
        }
    }

    private static let climb: [RingTransition.Step] = [.copying, .crossing, .settling, .cleaning]

    @Test(arguments: [1, 3]) func nobodyDecidesWhileTheFirstOwnerChanges(replicas: Int) {
        let (old, new) = (DeciderTests.nodes[0], DeciderTests.nodes[3])
        #expect(
            DeciderTests.deciders(DeciderTests.climb, at: 1500, replicas: replicas) == [old, nil, new, new])
        #expect(
            DeciderTests.deciders([.copying, .crossing, .retreating], at: 1500, replicas: replicas) == [old, nil, old])
    }

    @Test func whoStaysFirstDecidesAllTheWhile() {
        let old = DeciderTests.nodes[0]
        #expect(DeciderTests.deciders(DeciderTests.climb, at: 3000, replicas: 3) == [old, old, old, old])
    }

    @Test func theFirstOwnerDecidesInASteadyRing() {
        let table = RoutingTable(
            RingDocument(epoch: Epoch(1), ring: DeciderTests.ring([(2000, 0), (5000, 1)]), replicas: 2))
        #expect(table[DeciderTests.slot].decider == DeciderTests.nodes[0])
        #expect(table[Slot(3000)!].decider == DeciderTests.nodes[1])
    }
}
