// SPDX-License-Identifier: Apache-2.0

import HashRing
import TestSupport
import Testing

/// Where newcomers are put: free positions, the same for everybody who asks, and shares that stay even.
struct PositionPickerTests {
    private static func position(_ number: Int) -> Position {
        guard let position = Position(number) else { preconditionFailure("\(number) is no position") }
        return position
    }

    @Test(arguments: 0..<40)
    func picksFreePositionsAndAlwaysTheSame(seed: Int) throws {
        var random = SeededGenerator(state: UInt64(seed))
        let seats = [1, 2, 3, 20, 300, 9000][seed % 6]
        let ring = RingTests.ring(seed: seed, seats: seats, nodes: Int.random(in: 1...min(seats, 200), using: &random))
        let count = [1, 2, 8, 64, 256][seed % 5]
        let positions = try PositionPicker.positions(count, in: ring)
        #expect(positions.count == count && Set(positions).count == count && positions == positions.sorted())
        #expect(positions.allSatisfy { ring.node(at: $0) == nil })
        let same = try #require(Ring(seats: ring.seats.shuffled(using: &random)))
        #expect(try PositionPicker.positions(count, in: same) == positions)
    }

    /// What the README promises.
    @Test func sharesStayEvenFromThreeNodesToAHundred() throws {
        let shares = try Growth.largestShares(positions: 64, upTo: 100)
        #expect(shares.count == 98)
        #expect(try #require(shares.max()) <= 1.25)
        // And what is in docs/architecture.md.
        #expect(try #require(shares.max()) <= 1.02)
    }

    /// Also where the first nodes sit anywhere.
    @Test(arguments: 0..<6)
    func sharesGetEvenAfterABadBeginning(seed: Int) throws {
        var growth = Growth(from: RingTests.ring(seed: seed, seats: 192, nodes: 3))
        for nodes in 4...40 {
            try growth.add(positions: 64)
            if nodes >= 8 { #expect(growth.largestShare() <= 1.25, "\(nodes) nodes") }
        }
    }

    @Test(arguments: [(1, 1.6), (2, 1.34), (8, 1.09), (16, 1.04)])
    func fewerPositionsAreLessEven(count: Int, bound: Double) throws {
        #expect(try #require(Growth.largestShares(positions: count, upTo: 100).max()) <= bound)
    }

    /// With several replicas a node holds what the nodes before it hold, too.
    @Test(arguments: [2, 3])
    func replicasAreEven(replicas: Int) throws {
        #expect(try #require(Growth.largestShares(positions: 64, upTo: 100, replicas: replicas).max()) <= 1.25)
    }

    /// A node that leaves leaves its slots to those who follow it, and not all alike; whoever joins next evens that
    /// out.
    @Test(arguments: 0..<12)
    func leavingNodesDoNoHarmThatLasts(seed: Int) throws {
        var random = SeededGenerator(state: UInt64(seed))
        var growth = Growth()
        for _ in 0..<200 {
            let count = growth.members.count
            if count < 3 || count < 40 && Int.random(in: 0..<100, using: &random) < 55 {
                try growth.add(positions: 64)
                if growth.members.count >= 3 { #expect(growth.largestShare() <= 1.05) }
            } else {
                try growth.remove(at: Int.random(in: 0..<count, using: &random))
                if growth.members.count >= 3 { #expect(growth.largestShare() <= 1.4) }
            }
        }
    }

    /// Each machine in turn is replaced by a new one, again and again.
    @Test func replacingAllNodesKeepsSharesEven() throws {
        var growth = Growth()
        for _ in 0..<10 { try growth.add(positions: 64) }
        for _ in 0..<60 {
            try growth.remove(at: 0)
            try growth.add(positions: 64)
            #expect(growth.largestShare() <= 1.05)
        }
    }

    /// A node with twice the positions gets twice the slots.
    @Test func positionsAreWeights() throws {
        let counts = [16, 128, 64, 32, 64, 8, 256, 64, 64, 128, 32, 16]
        var growth = Growth()
        for count in counts { try growth.add(positions: count) }
        let all = counts.reduce(0, +)
        for (number, count) in counts.enumerated() {
            let node = try #require(Growth.node(number))
            let share = Slot.all.count { growth.ring.owner(of: $0) == node }
            let fair = Double(Slot.count * count) / Double(all)
            #expect((0.8...1.25).contains(Double(share) / fair), "\(count) positions")
        }
    }

    /// Of one that has nearly everything, a newcomer takes half.
    @Test func takesFromWhoeverHasMost() throws {
        let nodes = try (0..<3).map { try #require(Growth.node($0)) }
        let positions = [999, 9999].map(PositionPickerTests.position)
        let ring = try #require(Ring(seats: zip(positions, nodes).map { .init(position: $0, node: $1) }))
        #expect(try PositionPicker.positions(1, in: ring) == [PositionPickerTests.position(5499)])
        let alone = ring.removing(nodes[0])
        #expect(try PositionPicker.positions(1, in: alone) == [PositionPickerTests.position(4999)])
    }

    @Test func aFullRingHasNoRoom() throws {
        let nodes = try (0..<4).map { try #require(Growth.node($0)) }
        let all = (0..<Slot.count).map { Ring.Seat(position: PositionPickerTests.position($0), node: nodes[$0 % 3]) }
        let full = try #require(Ring(seats: all))
        #expect(throws: RingChangeError.notEnoughPositions(free: 0)) { try PositionPicker.positions(1, in: full) }
        let left = [0, 1, 5000, 5001, 5002, 9999]
        let almost = try #require(Ring(seats: all.filter { !left.contains(Int($0.position.value)) }))
        #expect(throws: RingChangeError.notEnoughPositions(free: 6)) { try PositionPicker.positions(7, in: almost) }
        #expect(try PositionPicker.positions(6, in: almost).map { Int($0.value) } == left)
    }

    @Test func usuallyAsManyAsTheOthers() throws {
        #expect(PositionPicker.usualCount(in: .empty) == 1)
        var growth = Growth()
        for (count, usual) in [(1, 1), (2, 2), (8, 4), (1, 3), (256, 54)] {
            try growth.add(positions: count)
            #expect(PositionPicker.usualCount(in: growth.ring) == usual)
        }
        #expect(PositionPicker.usualCount(in: RingTests.ring(seed: 1, seats: 900, nodes: 1)) == 256)
    }

    // MARK: Asking for it

    @Test func whatWasPickedAnswersTheSameRequestAgain() throws {
        let nodes = try (0..<2).map { try #require(Growth.node($0)) }
        let ring = try #require(Ring(seats: [.init(position: PositionPickerTests.position(100), node: nodes[0])]))
        let request = ChangeRequest.addAnywhere(nodes[1], count: 8)
        let change = try request.change(of: ring)
        let changed = try change.applied(to: ring)
        let before = RingDocument(epoch: Epoch(1), ring: ring)
        let after = RingDocument(epoch: Epoch(2), ring: changed)
        guard case .add(let added, let positions) = change else { throw RingChangeError.unknownNode(nodes[1]) }
        #expect(added == nodes[1] && positions.count == 8)
        for (again, isSame) in [
            (request, true), (.addAnywhere(nodes[1], count: nil), true), (.addAnywhere(nodes[1], count: 9), false),
            (.addAnywhere(nodes[0], count: 8), false), (.exactly(change), true),
            (.exactly(.add(node: nodes[1], positions: [positions[0]])), false),
            (.exactly(.remove(node: nodes[1])), false),
        ] {
            #expect(again.isMet(by: change) == isSame, "\(again)")
            #expect(again.isMade(in: after) == isSame, "\(again)")
            #expect(!again.isMade(in: before), "\(again)")
            #expect(!again.isMet(by: .remove(node: nodes[1])) || again == .exactly(.remove(node: nodes[1])))
        }
        #expect(throws: RingChangeError.alreadyMember(nodes[1], at: positions)) {
            try ChangeRequest.addAnywhere(nodes[1], count: 9).change(of: changed)
        }
    }

    @Test func aRemovalIsMadeOnceItWasTheLastChange() throws {
        let nodes = try (0..<2).map { try #require(Growth.node($0)) }
        let ring = try #require(Ring(seats: [.init(position: PositionPickerTests.position(100), node: nodes[0])]))
        let remove = RingChange.remove(node: nodes[1])
        func document(_ outcome: FinishedChange.Outcome?) -> RingDocument {
            RingDocument(
                epoch: Epoch(1), ring: ring,
                lastChange: outcome.map { FinishedChange(id: "x", change: remove, outcome: $0, reason: "") })
        }
        #expect(ChangeRequest.exactly(remove).isMade(in: document(.completed)))
        #expect(!ChangeRequest.exactly(remove).isMade(in: document(.aborted)))
        #expect(!ChangeRequest.exactly(remove).isMade(in: document(nil)))
    }
}
