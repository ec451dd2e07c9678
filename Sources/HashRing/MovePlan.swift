// SPDX-License-Identifier: Apache-2.0

/// What moves from whom to whom when one ring becomes another.
package struct MovePlan: Hashable, Sendable {
    /// A run of neighbouring slots that one set of nodes gains and another loses.
    package struct Move: Hashable, Sendable {
        package let slots: ClosedRange<UInt16>
        package let losers: [NodeID]
        package let gainers: [NodeID]
    }

    /// Ascending by slot; no two overlap.
    package let moves: [Move]

    package init(from: Ring, to: Ring, replicas: Int) {
        var moves: [Move] = []
        var holders: Set<NodeID> = []
        for slots in Ring.segments(of: [from, to]) {
            guard let slot = Slot(Int(slots.upperBound)) else { preconditionFailure("segments hold slots") }
            let old = from.preferenceList(of: slot, count: replicas)
            let new = to.preferenceList(of: slot, count: replicas)
            let gainers = new.filter { !old.contains($0) }
            // Where nobody leaves (fewer nodes than replicas), the old owner is who gives.
            let leavers = old.filter { !new.contains($0) }
            guard !gainers.isEmpty else { continue }
            holders.formUnion(old + new)
            let losers = leavers.isEmpty ? Array(old.prefix(1)) : leavers
            if let last = moves.last, last.slots.upperBound + 1 == slots.lowerBound, last.losers == losers,
                last.gainers == gainers
            {
                moves[moves.count - 1] = Move(
                    slots: last.slots.lowerBound...slots.upperBound, losers: losers, gainers: gainers)
            } else {
                moves.append(Move(slots: slots, losers: losers, gainers: gainers))
            }
        }
        self.moves = moves
        self.holders = holders
    }

    package init(_ transition: RingTransition, replicas: Int) {
        self.init(from: transition.from, to: transition.to, replicas: replicas)
    }

    /// Who gives pairs away, in `NodeID` order.
    package var losers: [NodeID] { Set(moves.flatMap(\.losers)).sorted() }

    /// Who gets pairs, in `NodeID` order.
    package var gainers: [NodeID] { Set(moves.flatMap(\.gainers)).sorted() }

    /// Who holds a slot that moves, before or after, those included that hold it all the while.
    package let holders: Set<NodeID>

    package var slotCount: Int { moves.reduce(0) { $0 + $1.slots.count } }

    /// Who gains the slot from this loser; empty where it keeps it.
    package func gainers(of slot: Slot, from loser: NodeID) -> [NodeID] {
        var low = 0
        var high = moves.count
        while low < high {
            let middle = (low + high) / 2
            if moves[middle].slots.upperBound < slot.value { low = middle + 1 } else { high = middle }
        }
        guard low < moves.count, moves[low].slots.contains(slot.value), moves[low].losers.contains(loser) else {
            return []
        }
        return moves[low].gainers
    }
}
