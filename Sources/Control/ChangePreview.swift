// SPDX-License-Identifier: Apache-2.0

package import HashRing

/// What a ring change would move, before it is made.
package struct ChangePreview: Sendable {
    package struct Node: Hashable, Sendable, Encodable {
        package let node: NodeID
        package let slotsOwnedBefore: Int
        package let slotsOwnedAfter: Int
        /// With those that it holds as a replica.
        package let slotsHeldBefore: Int
        package let slotsHeldAfter: Int
    }

    package let change: RingChange
    package let ring: Ring
    package let changed: Ring
    package let nodes: [Node]
    /// Slots whose first owner is another node afterwards.
    package let slotsWithNewOwner: Int
    /// Copies of slots that travel: one for each node that gets a slot which it did not hold.
    package let copiesMoved: Int
    /// Copies of slots that are kept afterwards, in all.
    package let copies: Int

    /// - Parameter document: with the ring as it is now.
    package init(_ request: ChangeRequest, of document: RingDocument) throws(RingChangeError) {
        let change = try request.change(of: document.ring)
        let changed = try change.applied(to: document.ring)
        self.change = change
        self.ring = document.ring
        self.changed = changed
        var counts: [NodeID: [Int]] = [:]
        var slotsWithNewOwner = 0
        var copiesMoved = 0
        var copies = 0
        for slots in Ring.segments(of: [document.ring, changed]) {
            guard let slot = Slot(Int(slots.upperBound)) else { preconditionFailure("segments hold slots") }
            let before = document.ring.preferenceList(of: slot, count: document.replicas)
            let after = changed.preferenceList(of: slot, count: document.replicas)
            func count(_ node: NodeID, _ index: Int) { counts[node, default: [0, 0, 0, 0]][index] += slots.count }
            if let owner = before.first { count(owner, 0) }
            if let owner = after.first { count(owner, 1) }
            for node in before { count(node, 2) }
            for node in after { count(node, 3) }
            if before.first != after.first { slotsWithNewOwner += slots.count }
            copiesMoved += slots.count * after.count { !before.contains($0) }
            copies += slots.count * after.count
        }
        self.nodes = counts.sorted { $0.key < $1.key }.map { node, count in
            Node(
                node: node, slotsOwnedBefore: count[0], slotsOwnedAfter: count[1], slotsHeldBefore: count[2],
                slotsHeldAfter: count[3])
        }
        self.slotsWithNewOwner = slotsWithNewOwner
        self.copiesMoved = copiesMoved
        self.copies = copies
    }

    /// About how many copies of pairs travel: as dense as they are where it is known.
    /// - Parameter pairs: how many pairs a node holds, for those of which it is known.
    package func estimatedPairs(held pairs: [NodeID: Int]) -> Int? {
        let known = nodes.filter { pairs[$0.node] != nil && $0.slotsHeldBefore > 0 }
        let slots = known.reduce(0) { $0 + $1.slotsHeldBefore }
        guard slots > 0 else { return nil }
        // (As numbers with a point: what nodes say need not add up.)
        let all = known.reduce(0) { $0 + Double(pairs[$1.node] ?? 0) }
        return Int(exactly: (all / Double(slots) * Double(copiesMoved)).rounded())
    }
}

extension Ring {
    /// How many slots each node owns.
    package var slotsOwned: [NodeID: Int] {
        var owned: [NodeID: Int] = [:]
        for slots in Ring.segments(of: [self]) {
            guard let node = Slot(Int(slots.upperBound)).flatMap({ owner(of: $0) }) else { continue }
            owned[node, default: 0] += slots.count
        }
        return owned
    }
}

extension RingChangeError {
    /// For people: why a ring change can't be made.
    package var sentence: String {
        switch self {
        case .alreadyMember(let node, let positions):
            "\(node) is in the ring already, at \(positions.map(\.description).joined(separator: ", "))"
        case .positionTaken(let position, let node): "position \(position) is taken by \(node)"
        case .unknownNode(let node): "\(node) is not in the ring"
        case .lastNode(let node): "\(node) is the last node of the ring; add another one first"
        case .tooManyNodes: "the ring has \(Ring.nodeLimit) nodes, the most that it may have"
        case .nobodyLeft(let slots): "\(slots) slots would be left to nodes that are gone"
        case .notEnoughPositions(let free): "only \(free) positions are free"
        }
    }
}
