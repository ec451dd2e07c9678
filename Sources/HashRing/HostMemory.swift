// SPDX-License-Identifier: Apache-2.0

/// One life of a host's memory, and what is decided about it: whether it can answer for what it does not hold.
///
/// It is *wanting* where pairs were acknowledged, here or by those whose place this host takes, that are not in it.
/// Then it is to be refilled before its answers count (see docs/replication.md).
package struct HostMemory: Hashable, Sendable {
    package let node: NodeID
    package let generation: Generation
    /// Whether the disk has pairs that an earlier memory held.
    package let hasSnapshot: Bool

    package init(node: NodeID, generation: Generation, hasSnapshot: Bool = false) {
        self.node = node
        self.generation = generation
        self.hasSnapshot = hasSnapshot
    }

    /// Whether it is wanting where it begins, empty, under this document.
    package func isWantingEmpty(under document: RingDocument?) -> Bool {
        guard let document, document.members.contains(node) else { return false }
        // What comes to those that join is the change's affair; a snapshot of theirs is of an earlier time on the ring.
        if let transition = document.transition, transition.step != .cleaning, !transition.from.contains(node) {
            return false
        }
        return hasSnapshot || !RefillPlan(document, node: node).isEmpty
    }

    /// Whether it is wanting from this document on, which follows another one that the host stood on.
    package func isWanting(under next: RingDocument, after previous: RingDocument?) -> Bool {
        // What was verified to have everything that moved was an earlier memory, lost after its host's last word.
        if let transition = next.transition, transition.step == .cleaning,
            hasReplaced(verifiedIn: transition, replicas: next.replicas)
        {
            return true
        }
        // A host that never heard of a ring in which it has a place: a new machine under an old address.
        guard let previous else { return isWantingEmpty(under: next) }
        guard let transition = previous.transition, transition.step == .settling, next.ring.contains(node),
            hasReplaced(verifiedIn: transition, replicas: previous.replicas)
        else { return false }
        return next.transition?.id != transition.id || next.transition?.step == .cleaning
    }

    /// Whether this host gains by the change, and another memory of it is the one on which the change rests.
    private func hasReplaced(verifiedIn transition: RingTransition, replicas: Int) -> Bool {
        guard transition.abortReason == nil, let fence = transition.fence(of: node), fence != generation else {
            return false
        }
        return MovePlan(transition, replicas: replicas).gainers.contains(node)
    }

    /// Whether it must not acknowledge anything while it is wanting under this document: where a change may yet go back
    /// to those that have what it lacks, they must have all that was acknowledged.
    package func isToWaitEmpty(under document: RingDocument) -> Bool {
        guard let transition = document.transition else { return false }
        return transition.step == .cleaning && transition.abortReason == nil
            && RefillPlan(document, node: node).isEmpty
    }

    /// Whether it must not answer reads of moving slots: they rest on an earlier memory, which is gone.
    package func isFenced(under document: RingDocument) -> Bool {
        guard let transition = document.transition, let fence = transition.fence(of: node), fence != generation else {
            return false
        }
        switch transition.step {
        // (Whom others refill has again what it lost, or is recovering.)
        case .copying, .retreating: return RefillPlan(document, node: node).isEmpty
        case .settling: return true
        case .crossing, .cleaning: return false
        }
    }
}
