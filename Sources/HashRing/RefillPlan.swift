// SPDX-License-Identifier: Apache-2.0

/// Whom a node has to hear from before it holds again what its lost memory held.
///
/// What was acknowledged is held by a majority of its slot's group. So many of the others that any majority without the
/// lost one has one of them among it have everything that was acknowledged.
package struct RefillPlan: Hashable, Sendable {
    /// The nodes that hold slots together with this one, and how many of them must have given theirs.
    private struct Others: Hashable, Sendable {
        let nodes: Set<NodeID>
        let needed: Int
    }

    private let others: Set<Others>

    package init(_ document: RingDocument, node: NodeID) {
        var others: Set<Others> = []
        for slots in RefillPlan.segments(of: document) {
            guard let slot = Slot(Int(slots.upperBound)) else { preconditionFailure("segments hold slots") }
            let group = RefillPlan.group(of: slot, in: document)
            guard group.members.contains(node), group.size > 1 else { continue }
            others.insert(Others(nodes: Set(group.members).subtracting([node]), needed: group.covering))
        }
        self.others = others
    }

    /// Who holds the slot as long as nothing is lost: during a change those that held it before, for what comes to the
    /// others is the change's own affair.
    package static func group(of slot: Slot, in document: RingDocument) -> ReplicaGroup {
        guard let transition = document.transition, transition.step != .cleaning else {
            return ReplicaGroup(members: document.ring.preferenceList(of: slot, count: document.replicas))
        }
        return ReplicaGroup(
            members: transition.from.preferenceList(of: slot, count: document.replicas), absent: transition.absent)
    }

    /// Of those who hold a slot beside the one that lost its memory: who gives it first. The others then need only see
    /// to what that one lacked. By turns, so that all give as much.
    package static func firstSource(of slot: Slot, for target: NodeID, in document: RingDocument) -> NodeID? {
        let others = group(of: slot, in: document).members.filter { $0 != target }
        return others.isEmpty ? nil : others[Int(slot.value) % others.count]
    }

    /// The slots whose group (as `group(of:in:)` has it) is such a one.
    package static func slots(in document: RingDocument, where isMeant: (ReplicaGroup) -> Bool) -> Set<UInt16> {
        var found: Set<UInt16> = []
        for slots in segments(of: document) {
            guard let slot = Slot(Int(slots.upperBound)) else { preconditionFailure("segments hold slots") }
            if isMeant(group(of: slot, in: document)) { found.formUnion(slots) }
        }
        return found
    }

    private static func segments(of document: RingDocument) -> [ClosedRange<UInt16>] {
        Ring.segments(of: [document.ring, document.transition?.from].compactMap { $0 })
    }

    /// Whether there is anybody to be refilled from.
    package var isEmpty: Bool { sources.isEmpty }

    package var sources: Set<NodeID> { others.reduce(into: []) { $0.formUnion($1.nodes) } }

    package enum Verdict: Hashable, Sendable {
        case incomplete
        /// All that was acknowledged is here again.
        case refilled
        /// All that the others have is here; but some of them had lost their memory too.
        case refilledFromRemains
    }

    /// - Parameters:
    ///   - whole: who has given all it has, in a memory that was never lost, or is refilled.
    ///   - recovering: who has given all it has, but is recovering itself.
    package func verdict(whole: Set<NodeID>, recovering: Set<NodeID>) -> Verdict {
        if others.allSatisfy({ $0.nodes.intersection(whole).count >= $0.needed }) { return .refilled }
        let all = whole.union(recovering)
        return others.allSatisfy { $0.nodes.isSubset(of: all) } ? .refilledFromRemains : .incomplete
    }
}
