// SPDX-License-Identifier: Apache-2.0

import HashRing

/// Nodes by number that join and leave a ring, at positions that are picked; and how even that is.
struct Growth {
    private(set) var ring: Ring
    private(set) var members: [Int] = []
    private var nextNumber = 0

    init(from ring: Ring = .empty) { self.ring = ring }

    static func node(_ number: Int) -> NodeID? { NodeID("10.1.\(number / 250).\(number % 250 + 1):5000") }

    mutating func add(positions count: Int) throws {
        guard let node = Growth.node(nextNumber) else { return }
        let change = RingChange.add(node: node, positions: try PositionPicker.positions(count, in: ring))
        ring = try change.applied(to: ring)
        members.append(nextNumber)
        nextNumber += 1
    }

    /// - Parameter index: into `members`.
    mutating func remove(at index: Int) throws {
        guard let node = Growth.node(members.remove(at: index)) else { return }
        ring = try RingChange.remove(node: node).applied(to: ring)
    }

    /// The most slots that a node holds, over the mean.
    func largestShare(replicas: Int = 1) -> Double {
        var loads: [NodeID: Int] = [:]
        for slots in Ring.segments(of: [ring]) {
            guard let slot = Slot(Int(slots.upperBound)) else { continue }
            for node in ring.preferenceList(of: slot, count: replicas) { loads[node, default: 0] += slots.count }
        }
        return Double((loads.values.max() ?? 0) * loads.count) / Double(loads.values.reduce(0, +))
    }

    /// The largest share for 3, 4, … up to so many nodes, which join one after the other.
    static func largestShares(positions count: Int, upTo nodes: Int, replicas: Int = 1) throws -> [Double] {
        var growth = Growth()
        for _ in 0..<2 { try growth.add(positions: count) }
        return try (3...nodes).map { _ in
            try growth.add(positions: count)
            return growth.largestShare(replicas: replicas)
        }
    }
}
