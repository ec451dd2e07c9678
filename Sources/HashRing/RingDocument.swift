// SPDX-License-Identifier: Apache-2.0

/// The ring as all nodes know it: one value under one epoch, kept in each host's memcached and on its disk.
///
/// Two documents of one epoch are equal unless an operator installed different rings by hand on different nodes.
package struct RingDocument: Hashable, Sendable, Codable {
    package var epoch: Epoch
    /// Whose owners answer reads now.
    package var ring: Ring
    /// How many nodes hold each pair (Dynamo's N); never more than the ring has nodes.
    package var replicas: Int
    /// Nodes in no position that are told about changes all the same.
    package var standbys: [NodeID]
    /// The change that is under way.
    package var transition: RingTransition?
    /// The change before it, and how it ended.
    package var lastChange: FinishedChange?

    package init(
        epoch: Epoch, ring: Ring, replicas: Int = 1, standbys: [NodeID] = [], transition: RingTransition? = nil,
        lastChange: FinishedChange? = nil
    ) {
        self.epoch = epoch
        self.ring = ring
        self.replicas = replicas
        self.standbys = standbys
        self.transition = transition
        self.lastChange = lastChange
    }

    /// Every node that must stand on an epoch before the next one: the nodes of both rings.
    package var members: [NodeID] {
        guard let transition else { return ring.nodes }
        return Set(transition.from.nodes + transition.to.nodes).sorted()
    }
}

/// What an operator asked for.
package enum RingChange: Hashable, Sendable, Codable {
    case add(node: NodeID, position: Position)
    case remove(node: NodeID)

    package var node: NodeID {
        switch self {
        case .add(let node, _), .remove(let node): node
        }
    }

    /// The ring that this change makes of another one.
    package func applied(to ring: Ring) throws(RingChangeError) -> Ring {
        switch self {
        case .add(let node, let position):
            if ring.contains(node) { throw .alreadyMember(node, at: ring.positions(of: node)) }
            if ring.nodes.count >= Ring.nodeLimit { throw .tooManyNodes }
            guard let changed = ring.adding(node, at: position) else {
                throw .positionTaken(position, by: ring.node(at: position) ?? node)
            }
            return changed
        case .remove(let node):
            guard ring.contains(node) else { throw .unknownNode(node) }
            let changed = ring.removing(node)
            if changed.isEmpty { throw .lastNode(node) }
            return changed
        }
    }

    private enum CodingKeys: String, CodingKey { case kind, node, position }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        let node = try container.decode(NodeID.self, forKey: .node)
        switch try container.decode(String.self, forKey: .kind) {
        case "add":
            guard let position = Position(try container.decode(Int.self, forKey: .position)) else {
                throw DecodingError.dataCorruptedError(
                    forKey: .position, in: container, debugDescription: "a position is 0…9999")
            }
            self = .add(node: node, position: position)
        case "remove": self = .remove(node: node)
        case let kind:
            throw DecodingError.dataCorruptedError(
                forKey: .kind, in: container, debugDescription: "no such change: \(kind)")
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(node, forKey: .node)
        switch self {
        case .add(_, let position):
            try container.encode("add", forKey: .kind)
            try container.encode(Int(position.value), forKey: .position)
        case .remove: try container.encode("remove", forKey: .kind)
        }
    }
}

/// Why a change can't be made to a ring; none of these changes anything.
package enum RingChangeError: Error, Hashable, Sendable {
    case alreadyMember(NodeID, at: [Position])
    case positionTaken(Position, by: NodeID)
    case unknownNode(NodeID)
    case lastNode(NodeID)
    /// The ring has `Ring.nodeLimit` nodes.
    case tooManyNodes
}

/// How a change ended, kept in the document for whoever asks afterwards.
package struct FinishedChange: Hashable, Sendable, Codable {
    package enum Outcome: String, Hashable, Sendable, Codable { case completed, aborted }

    package let id: String
    package let change: RingChange
    package let outcome: Outcome
    /// Why it was aborted, or what was lost on the way; empty where all went well.
    package let reason: String

    package init(id: String, change: RingChange, outcome: Outcome, reason: String) {
        self.id = id
        self.change = change
        self.outcome = outcome
        self.reason = reason
    }
}
