// SPDX-License-Identifier: Apache-2.0

package import HashRing

/// What a ring change would move, as `GET /plan/…` and `kvctl ring plan --json` have it.
package struct PlanReport: Sendable, Encodable {
    package let change: String
    /// Where a newcomer would sit.
    package let positions: [Int]
    package let nodes: [ChangePreview.Node]
    package let slotsWithNewOwner: Int
    package let copiesOfSlotsMoved: Int
    package let copiesOfSlots: Int
    /// Copies of pairs, about; nil where nobody says how many there are.
    package let estimatedPairsMoved: Int?
    /// Those that do not say how many they hold, and so are not counted there.
    package let silent: [NodeID]

    /// - Parameter pairs: how many each node holds, of those that say so.
    package init(_ preview: ChangePreview, held pairs: [NodeID: Int]) {
        change = preview.change.sentence
        if case .add(_, let places) = preview.change {
            positions = places.map { Int($0.value) }
        } else {
            positions = []
        }
        nodes = preview.nodes
        slotsWithNewOwner = preview.slotsWithNewOwner
        copiesOfSlotsMoved = preview.copiesMoved
        copiesOfSlots = preview.copies
        estimatedPairsMoved = preview.estimatedPairs(held: pairs)
        silent = preview.nodes.filter { $0.slotsHeldBefore > 0 && pairs[$0.node] == nil }.map(\.node)
    }
}
