// SPDX-License-Identifier: Apache-2.0

/// Picks positions for a node that joins a ring, so that every node's share of the slots stays in proportion to its
/// positions: a node's *weight*. Pure, and in whole numbers: whoever asks for the same ring gets the same positions.
///
/// Of each gap that it splits, the newcomer takes exactly as many slots as it wants, for it chooses where to sit in it.
/// So it takes, position by position, an even part of what it still lacks, always from the node that is loaded most.
/// (Halving the widest gaps instead lets the largest share swing up to twice the mean: all gaps of one age grow old
/// together.) Among that node's gaps it prefers those behind nodes that it follows least: what a node had falls to
/// those who follow it when it leaves, and should be spread over many.
package enum PositionPicker {
    /// The most positions that may be picked for one node. More even out nothing: 64 keep the largest share within 2 %
    /// of the mean, and the ring has only 10,000.
    package static let countLimit = 256

    /// How many positions a node gets where nobody says: as many as the others have on average, rounded, so that it
    /// gets as much as they have.
    package static func usualCount(in ring: Ring) -> Int {
        let nodes = ring.nodes.count
        guard nodes > 0 else { return 1 }
        return min(rounded(ring.seats.count, over: nodes), countLimit)
    }

    /// - Parameter count: 1…`countLimit`.
    /// - Returns: free positions, ascending.
    package static func positions(_ count: Int, in ring: Ring) throws(RingChangeError) -> [Position] {
        precondition((1...countLimit).contains(count), "a node has 1…\(countLimit) positions")
        let free = Slot.count - ring.seats.count
        guard count <= free else { throw .notEnoughPositions(free: free) }
        guard !ring.isEmpty else { return (1...count).compactMap { Position($0 * Slot.count / count - 1) } }
        var donors = Donor.all(of: ring)
        let goal = fairShare(of: count, among: donors)
        var positions: [Position] = []
        var taken = 0
        /// How many slots the newcomer has taken right behind each node; by index into `donors`.
        var following = [Int](repeating: 0, count: donors.count)
        for left in stride(from: count, through: 1, by: -1) {
            let wish = max(rounded(max(goal - taken, 0), over: left), 1)
            let giver = heaviest(of: donors)
            let index = donors[giver].gap(for: wish, following: following)
            let gap = donors[giver].gaps[index]
            let width = min(wish, gap.width - 1)
            guard let position = Position((gap.end - gap.width + width + Slot.count) % Slot.count) else {
                preconditionFailure("a gap lies on the ring")
            }
            positions.append(position)
            if let behind = gap.behind { following[behind] += width }
            donors[giver].gaps[index] = Gap(end: gap.end, width: gap.width - width, behind: nil)
            donors[giver].share -= width
            taken += width
        }
        return positions.sorted()
    }

    /// The slots that the newcomer should have: its part, by positions, of all. More where others are too full: what
    /// is over if the fullest (as many as it has positions, for each of these takes from one) are lowered to one level,
    /// and the newcomer stands at that level too.
    private static func fairShare(of count: Int, among donors: [Donor]) -> Int {
        var share = 0
        var positions = count
        for donor in donors.sorted(by: { $0.isHeavier(than: $1) }).prefix(count) {
            // Those who stand lower than that give nothing.
            if share > 0, donor.share * positions <= share * donor.positions { break }
            share += donor.share
            positions += donor.positions
        }
        let all = donors.reduce(count) { $0 + $1.positions }
        return max(rounded(share * count, over: positions), rounded(Slot.count * count, over: all))
    }

    private static func rounded(_ number: Int, over divisor: Int) -> Int { (2 * number + divisor) / (2 * divisor) }

    /// Of those that can give, the first with the most slots a position.
    private static func heaviest(of donors: [Donor]) -> Int {
        var best: Int?
        for index in donors.indices where donors[index].hasRoom {
            if let best, !donors[index].isHeavier(than: donors[best]) { continue }
            best = index
        }
        guard let best else { preconditionFailure("a ring with a free position has a gap around it") }
        return best
    }
}

/// A node of the ring, and the gaps before its positions: its slots.
private struct Donor {
    /// Its weight: how many positions it has.
    let positions: Int
    var share: Int
    var gaps: [Gap]

    /// Whether some gap of it is wide enough for another position.
    var hasRoom: Bool { share > gaps.count }

    func isHeavier(than other: Donor) -> Bool { share * other.positions > other.share * positions }

    /// Where to take so many slots: of the gaps that hold more than that, one behind whom the newcomer follows least,
    /// and the widest of those; else the widest of all.
    func gap(for wish: Int, following: [Int]) -> Int {
        func isBetter(_ gap: Gap, than other: Gap) -> Bool {
            let isWide = gap.width > wish
            guard isWide == (other.width > wish) else { return isWide }
            // (Behind the newcomer itself, it spreads nothing.)
            let follows = gap.behind.map { following[$0] } ?? Int.max
            let othersFollows = other.behind.map { following[$0] } ?? Int.max
            guard !isWide || follows == othersFollows else { return follows < othersFollows }
            return gap.width > other.width
        }
        var best = 0
        for index in gaps.indices where isBetter(gaps[index], than: gaps[best]) { best = index }
        return best
    }

    /// All nodes of the ring, in `NodeID` order, each with its gaps in the order of its positions.
    static func all(of ring: Ring) -> [Donor] {
        let nodes = ring.nodes
        let indices = Dictionary(uniqueKeysWithValues: nodes.enumerated().map { ($1, $0) })
        var gaps = [[Gap]](repeating: [], count: nodes.count)
        guard var last = ring.seats.last else { return [] }
        for seat in ring.seats {
            guard let node = indices[seat.node] else { continue }
            let end = Int(seat.position.value)
            let width = (end - Int(last.position.value) + Slot.count) % Slot.count
            gaps[node].append(Gap(end: end, width: width == 0 ? Slot.count : width, behind: indices[last.node]))
            last = seat
        }
        return gaps.map { Donor(positions: $0.count, share: $0.reduce(0) { $0 + $1.width }, gaps: $0) }
    }
}

/// The slots up to a position, from the one before it.
private struct Gap {
    let end: Int
    let width: Int
    /// The node at the position before it, by its index; nil where that is the newcomer.
    let behind: Int?
}
