// SPDX-License-Identifier: Apache-2.0

/// A ring change under way: both rings, and the rung of the ladder on which all nodes stand or are about to.
///
/// Neighbouring rungs are compatible: while some nodes stand on one and some on the next, every key stays
/// linearizable. docs/ring-changes.md argues why, and the simulation tries it.
package struct RingTransition: Hashable, Sendable, Codable {
    /// The rungs. Entered and left in this order: copying → crossing → settling → cleaning; an abort climbs
    /// copying → cleaning or copying → crossing → retreating → cleaning. A gainer that lost its memory while settling
    /// sends the change back to crossing; one that lost it while it was verified makes all cross again, under a new
    /// epoch.
    package enum Step: String, Hashable, Sendable, Codable, CaseIterable {
        /// Writes of moving slots go to both sides, reads ask the old one; losers stream their pairs.
        case copying
        /// Writes go to both sides, reads ask both and write the newest back; losers verify what gainers hold.
        case crossing
        /// Writes go to both sides, reads ask the new one.
        case settling
        /// An abort from crossing: writes go to both sides, reads ask the old one.
        case retreating
        /// One ring again; whoever holds pairs that it does not own deletes them.
        case cleaning

        /// Whether a node whose memory was lost has to be refilled before it stands on this step: those whom it is
        /// refilled from are about to delete what they hold.
        package var needsWholeMemories: Bool {
            switch self {
            case .crossing, .settling: true
            case .copying, .retreating, .cleaning: false
            }
        }
    }

    package let id: String
    package let change: RingChange
    package let from: Ring
    package let to: Ring
    package var step: Step
    /// Set once an abort was decided; never unset.
    package var abortReason: String?
    /// Whether some node may have answered reads from the new side alone. From then on there is no way back: the new
    /// side may hold, and have shown, what the old one never got.
    package var hasSettled: Bool
    /// What was lost on the way, for the operator; empty where nothing was.
    package var losses: [String]
    /// Nodes of either ring that an operator has declared gone for good: nobody waits for them, and what they held
    /// comes from the others.
    package var absent: [NodeID]
    /// The memories on which this step rests: the losers' from the beginning, the gainers' as soon as they were copied
    /// to. While one side answers reads alone, a node of it whose memcached is of another generation refuses them; and
    /// a gainer must have been on the same memory all through crossing before reads may settle on it.
    package var fences: [Fence]

    package struct Fence: Hashable, Sendable, Codable {
        package let node: NodeID
        package let generation: Generation

        package init(node: NodeID, generation: Generation) {
            self.node = node
            self.generation = generation
        }
    }

    package init(
        id: String, change: RingChange, from: Ring, to: Ring, step: Step, fences: [Fence] = [],
        abortReason: String? = nil, hasSettled: Bool = false, losses: [String] = [], absent: [NodeID] = []
    ) {
        self.id = id
        self.change = change
        self.from = from
        self.to = to
        self.step = step
        self.fences = fences
        self.abortReason = abortReason
        self.hasSettled = hasSettled
        self.losses = losses
        self.absent = absent
    }

    package func fence(of node: NodeID) -> Generation? { fences.first { $0.node == node }?.generation }

    /// What an operation on a moving slot has to ask at this step.
    package var rule: Rule {
        switch step {
        case .copying, .retreating: Rule(reads: .from, writes: .both)
        case .crossing: Rule(reads: .both, writes: .both)
        case .settling: Rule(reads: .to, writes: .both)
        case .cleaning: abortReason == nil ? Rule(reads: .to, writes: .to) : Rule(reads: .from, writes: .from)
        }
    }

    package struct Rule: Hashable, Sendable {
        package enum Side: Hashable, Sendable { case from, to, both }
        package let reads: Side
        package let writes: Side
    }
}
