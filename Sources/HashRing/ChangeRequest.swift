// SPDX-License-Identifier: Apache-2.0

/// What an operator asks for: a change as it stands, or a node's joining at positions that are picked from the ring
/// that it joins, once that ring is known.
package enum ChangeRequest: Hashable, Sendable {
    case exactly(RingChange)
    /// - Parameter count: how many positions; nil: as many as the others have.
    case addAnywhere(NodeID, count: Int?)

    package var node: NodeID {
        switch self {
        case .exactly(let change): change.node
        case .addAnywhere(let node, _): node
        }
    }

    package var leaver: NodeID? {
        switch self {
        case .exactly(let change): change.leaver
        case .addAnywhere: nil
        }
    }

    /// Who is new in the ring.
    package var joiner: NodeID? {
        switch self {
        case .exactly(let change): change.joiner
        case .addAnywhere(let node, _): node
        }
    }

    /// The change that this is on that ring.
    package func change(of ring: Ring) throws(RingChangeError) -> RingChange {
        switch self {
        case .exactly(let change): return change
        case .addAnywhere(let node, let count):
            // (Before there is talk of room.)
            if ring.contains(node) { throw .alreadyMember(node, at: ring.positions(of: node)) }
            let count = count ?? PositionPicker.usualCount(in: ring)
            return .add(node: node, positions: try PositionPicker.positions(count, in: ring))
        }
    }

    /// Whether that change is what was asked for, wherever the positions are that were picked for it.
    package func isMet(by change: RingChange) -> Bool {
        switch (self, change) {
        case (.exactly(let wanted), _): wanted == change
        case (.addAnywhere(let node, let count), .add(let added, let positions)):
            node == added && (count == nil || count == positions.count)
        case (.addAnywhere, .remove), (.addAnywhere, .replace): false
        }
    }

    /// Whether it was made before: the ring is as it would make it.
    package func isMade(in document: RingDocument) -> Bool {
        switch self {
        case .exactly(.remove(let node)):
            guard let last = document.lastChange else { return false }
            return isMet(by: last.change) && last.outcome == .completed && !document.ring.contains(node)
        case .exactly(.replace(let old, let new)):
            guard let last = document.lastChange else { return false }
            return isMet(by: last.change) && last.outcome == .completed && !document.ring.contains(old)
                && document.ring.contains(new)
        case .exactly(.add(let node, _)), .addAnywhere(let node, _):
            let positions = document.ring.positions(of: node)
            return !positions.isEmpty && isMet(by: .add(node: node, positions: positions))
        }
    }
}
