// SPDX-License-Identifier: Apache-2.0

/// What moves from whom to whom when one ring becomes another.
///
/// Afterwards a majority of each new group holds whatever a majority of the old one held:
/// - where one member takes the place of another, the one that leaves gives it all it has;
/// - where a group shrinks, the one that leaves gives the others what they lack: it may have been one of a bare
///   majority;
/// - where a group grows, so many give to the new member that they have everything between them (`covering`);
/// - where somebody is gone for good, so many of those that are left (`covering`, too) give it to all that are left.
package struct MovePlan: Hashable, Sendable {
    /// A run of neighbouring slots that one set of nodes gives to another.
    package struct Move: Hashable, Sendable {
        package let slots: ClosedRange<UInt16>
        /// Who gives. Never empty: somebody's word has to make the change's documents real.
        package let losers: [NodeID]
        /// Who gets; empty where nobody lacks anything.
        package let gainers: [NodeID]
        /// Whether gainers hold the slots already, and lack little.
        package let isCatchUp: Bool

        fileprivate func isLike(_ other: Move) -> Bool {
            losers == other.losers && gainers == other.gainers && isCatchUp == other.isCatchUp
        }
    }

    /// Ascending by slot; no two overlap.
    package let moves: [Move]
    /// How many slots have no holder left that could give their pairs.
    package let lostSlotCount: Int
    /// How many slots would have no holder in the end, though somebody holds them now.
    package let heirlessSlotCount: Int

    /// - Parameter absent: nodes that neither give nor get, for they are gone for good.
    package init(from: Ring, to: Ring, replicas: Int, absent: [NodeID] = []) {
        var moves: [Move] = []
        var holders: Set<NodeID> = []
        var heirs: Set<NodeID> = []
        var lostSlotCount = 0
        var heirlessSlotCount = 0
        for slots in Ring.segments(of: [from, to]) {
            guard let slot = Slot(Int(slots.upperBound)) else { preconditionFailure("segments hold slots") }
            let old = from.preferenceList(of: slot, count: replicas)
            let new = to.preferenceList(of: slot, count: replicas)
            guard old != new else { continue }
            let before = ReplicaGroup(members: old, absent: absent)
            let after = ReplicaGroup(members: new, absent: absent)
            holders.formUnion(before.members + after.members)
            heirs.formUnion(after.members)
            if before.members.isEmpty { lostSlotCount += slots.count }
            if after.members.isEmpty, !before.members.isEmpty { heirlessSlotCount += slots.count }
            guard let move = MovePlan.move(slots, before, after) else { continue }
            if let last = moves.last, last.slots.upperBound + 1 == slots.lowerBound, last.isLike(move) {
                moves[moves.count - 1] = Move(
                    slots: last.slots.lowerBound...slots.upperBound, losers: move.losers, gainers: move.gainers,
                    isCatchUp: move.isCatchUp)
            } else {
                moves.append(move)
            }
        }
        self.moves = moves
        self.holders = holders
        self.heirs = heirs
        self.lostSlotCount = lostSlotCount
        self.heirlessSlotCount = heirlessSlotCount
    }

    package init(_ transition: RingTransition, replicas: Int) {
        self.init(from: transition.from, to: transition.to, replicas: replicas, absent: transition.absent)
    }

    private static func move(
        _ slots: ClosedRange<UInt16>, _ before: ReplicaGroup, _ after: ReplicaGroup
    ) -> Move? {
        func move(_ losers: [NodeID], _ gainers: [NodeID], isCatchUp: Bool = false) -> Move? {
            let deciders = losers.isEmpty ? Array(after.members.prefix(1)) : losers
            guard !deciders.isEmpty else { return nil }
            return Move(slots: slots, losers: deciders, gainers: gainers, isCatchUp: isCatchUp)
        }
        let coverers = Array(before.members.prefix(before.covering))
        if before.isWithoutSome || after.isWithoutSome {
            let others = coverers.count > 1 ? after.members : after.members.filter { !coverers.contains($0) }
            return move(coverers, coverers.isEmpty ? [] : others, isCatchUp: true)
        }
        let joiners = after.members.filter { !before.members.contains($0) }
        let leavers = before.members.filter { !after.members.contains($0) }
        if !joiners.isEmpty { return move(leavers.isEmpty ? coverers : leavers, joiners) }
        if !leavers.isEmpty { return move(leavers, after.members, isCatchUp: true) }
        return move(Array(before.members.prefix(1)), [])
    }

    /// Who gives pairs, in `NodeID` order.
    package var losers: [NodeID] { Set(moves.flatMap(\.losers)).sorted() }

    /// Who gets pairs, in `NodeID` order.
    package var gainers: [NodeID] { Set(moves.flatMap(\.gainers)).sorted() }

    /// Who holds a slot that moves, before or after, those included that hold it all the while.
    package let holders: Set<NodeID>

    /// Who holds a slot that moves when all is over.
    package let heirs: Set<NodeID>

    package var slotCount: Int { moves.reduce(0) { $0 + $1.slots.count } }

    /// Who gets the slot's pairs from this loser; empty where it gives none.
    package func gainers(of slot: Slot, from loser: NodeID) -> [NodeID] {
        guard let move = move(of: slot), move.losers.contains(loser) else { return [] }
        return move.gainers.filter { $0 != loser }
    }

    private func move(of slot: Slot) -> Move? {
        var low = 0
        var high = moves.count
        while low < high {
            let middle = (low + high) / 2
            if moves[middle].slots.upperBound < slot.value { low = middle + 1 } else { high = middle }
        }
        return low < moves.count && moves[low].slots.contains(slot.value) ? moves[low] : nil
    }
}
