// SPDX-License-Identifier: Apache-2.0

/// The nodes that hold a slot under one ring, its owner first, and how many of them must answer.
package struct ReplicaGroup: Hashable, Sendable {
    /// Those of them that count.
    package let members: [NodeID]
    /// How many there are, with those that an operator has declared gone for good.
    package let size: Int

    /// A majority of all: any two have a member in common, also if one of them is of a ring with one member more or
    /// less. Where too many are gone for that, all that are left.
    package var quorum: Int { min(size / 2 + 1, members.count) }

    /// Whether somebody of it is gone for good.
    package var isWithoutSome: Bool { members.count < size }

    /// So many members have, between them, everything that a majority holds.
    package var covering: Int { size - (size / 2 + 1) + 1 }

    /// - Parameter absent: does not count.
    package init(members: [NodeID], absent: [NodeID] = []) {
        self.members = absent.isEmpty ? members : members.filter { !absent.contains($0) }
        self.size = members.count
    }
}

/// Whom an operation on a slot has to ask: every group must reach its quorum. One group in a steady ring, two (the old
/// and the new owners) for a slot that moves.
package struct Placement: Hashable, Sendable {
    package let reads: [ReplicaGroup]
    package let writes: [ReplicaGroup]
    /// Whether a ring change takes this slot from somebody to somebody else at this moment.
    package let isMoving: Bool
    /// Who decides on conditional writes: the first owner of those who answer reads. Nil while both sides answer them
    /// and have different ones: nobody decides then, so that no two nodes do at the same time.
    package var decider: NodeID? {
        guard let first = reads.first?.members.first, reads.allSatisfy({ $0.members.first == first }) else {
            return nil
        }
        return first
    }

    package init(reads: [ReplicaGroup], writes: [ReplicaGroup], isMoving: Bool) {
        self.reads = reads
        self.writes = writes
        self.isMoving = isMoving
    }

    /// The one node that holds the slot, where one alone does: it stamps writes itself.
    package var soleOwner: NodeID? {
        guard !isMoving, writes.count == 1, writes[0].members.count == 1 else { return nil }
        return writes[0].members[0]
    }

    /// Whether the node is among those that hold the slot now, on either side.
    package func involves(_ node: NodeID) -> Bool {
        writes.contains { $0.members.contains(node) } || reads.contains { $0.members.contains(node) }
    }
}

/// A ring document made ready for look-ups: one array access from slot to placement.
package final class RoutingTable: Sendable {
    package let document: RingDocument
    package let placements: [Placement]
    /// How many nodes the ring has.
    package let nodeCount: Int
    /// Index into `placements` by slot number.
    private let indices: [UInt16]

    /// The document must have a ring with at least one seat.
    package init(_ document: RingDocument) {
        precondition(!document.ring.isEmpty, "a routing table needs a ring")
        var placements: [Placement] = []
        var known: [Placement: UInt16] = [:]
        var indices: [UInt16] = []
        indices.reserveCapacity(Slot.count)
        let rings = [document.ring] + [document.transition?.from, document.transition?.to].compactMap { $0 }
        for slots in Ring.segments(of: rings) {
            guard let slot = Slot(Int(slots.upperBound)) else { preconditionFailure("segments hold slots") }
            let placement = RoutingTable.placement(of: slot, in: document)
            // At most one placement a slot, so the index fits.
            let index = known[placement] ?? UInt16(placements.count)
            if index == placements.count {
                known[placement] = index
                placements.append(placement)
            }
            indices.append(contentsOf: repeatElement(index, count: slots.count))
        }
        self.document = document
        self.placements = placements
        self.nodeCount = document.ring.nodes.count
        self.indices = indices
    }

    package subscript(slot: Slot) -> Placement { placements[Int(indices[Int(slot.value)])] }

    /// The slot's index into `placements`.
    package func placementIndex(of slot: Slot) -> Int { Int(indices[Int(slot.value)]) }

    private static func placement(of slot: Slot, in document: RingDocument) -> Placement {
        func group(_ ring: Ring, absent: [NodeID] = []) -> ReplicaGroup {
            ReplicaGroup(members: ring.preferenceList(of: slot, count: document.replicas), absent: absent)
        }
        guard let transition = document.transition, transition.step != .cleaning else {
            let owners = [group(document.ring)]
            return Placement(reads: owners, writes: owners, isMoving: false)
        }
        guard group(transition.from) != group(transition.to) else {
            let owners = [group(transition.from)]
            return Placement(reads: owners, writes: owners, isMoving: false)
        }
        let from = group(transition.from, absent: transition.absent)
        let to = group(transition.to, absent: transition.absent)
        func groups(_ side: RingTransition.Rule.Side) -> [ReplicaGroup] {
            let wanted: [ReplicaGroup] =
                switch side {
                case .from: [from]
                case .to: [to]
                case .both: [from, to]
                }
            // Where all of a side are gone for good, what they held is lost, and the other one answers alone.
            let left = wanted.filter { !$0.members.isEmpty }
            return left.isEmpty ? [from, to].filter { !$0.members.isEmpty } : left
        }
        return Placement(
            reads: groups(transition.rule.reads), writes: groups(transition.rule.writes), isMoving: true)
    }
}
