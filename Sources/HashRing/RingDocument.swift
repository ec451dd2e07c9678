// SPDX-License-Identifier: Apache-2.0

private import Crypto

/// The ring as all nodes know it: one value under one epoch, kept in each host's memcached and on its disk.
///
/// Two documents of one epoch are equal unless an operator installed different rings by hand on different nodes.
package struct RingDocument: Hashable, Sendable, Codable {
    package var epoch: Epoch
    /// Names the cluster: made of its first ring, and never changed. Nil: of a version that had no names.
    package var cluster: String?
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
        epoch: Epoch, cluster: String? = nil, ring: Ring, replicas: Int = 1, standbys: [NodeID] = [],
        transition: RingTransition? = nil, lastChange: FinishedChange? = nil
    ) {
        self.epoch = epoch
        self.cluster = cluster
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

extension RingDocument {
    /// Whether both are of one cluster; where a name is lacking, whether both name some node.
    package func isOfOneCluster(with other: RingDocument) -> Bool {
        if let cluster, let name = other.cluster { return cluster == name }
        return sharesNodes(with: other)
    }

    /// Whether the node stands by in this document, and the ring, which it is to become a part of, has none of its
    /// members.
    package func hasAsStandbyOnly(_ node: NodeID, besides ring: Ring) -> Bool {
        !members.contains(node) && standbys.contains(node) && Set(members).isDisjoint(with: ring.nodes)
    }

    package func sharesNodes(with other: RingDocument) -> Bool {
        !Set(members + standbys).isDisjoint(with: other.members + other.standbys)
    }

    /// The name in a document that follows this one; where there is none, a cluster is founded with this ring.
    package static func clusterName(after previous: RingDocument?, installing ring: Ring) -> String? {
        previous == nil ? clusterName(foundedWith: ring) : previous?.cluster
    }

    /// The name of a cluster that begins with this ring: the same, whichever node is told of it first.
    package static func clusterName(foundedWith ring: Ring) -> String {
        let seats = ring.seats.map { "\($0.position.value) \($0.node)\n" }.joined()
        return SHA256.hash(data: Array(seats.utf8)).prefix(8).map { byte in
            (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }.joined()
    }

    /// Why nothing can be made of this document, which came from elsewhere; nil where something can.
    private var defect: String? {
        if ring.isEmpty { return "a ring without nodes" }
        if replicas < 1 || replicas > Ring.nodeLimit { return "\(replicas) replicas" }
        if let transition, transition.from.isEmpty || transition.to.isEmpty {
            return "a change of a ring without nodes"
        }
        return nil
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            epoch: try container.decode(Epoch.self, forKey: .epoch),
            cluster: try container.decodeIfPresent(String.self, forKey: .cluster),
            ring: try container.decode(Ring.self, forKey: .ring),
            replicas: try container.decode(Int.self, forKey: .replicas),
            standbys: try container.decode([NodeID].self, forKey: .standbys),
            transition: try container.decodeIfPresent(RingTransition.self, forKey: .transition),
            lastChange: try container.decodeIfPresent(FinishedChange.self, forKey: .lastChange))
        if let defect {
            throw DecodingError.dataCorrupted(.init(codingPath: decoder.codingPath, debugDescription: defect))
        }
    }
}

/// One step from a ring to the next.
package enum RingChange: Hashable, Sendable, Codable {
    /// At one position or several, ascending.
    case add(node: NodeID, positions: [Position])
    case remove(node: NodeID)
    /// Puts one node in the place of another, at all its positions.
    case replace(old: NodeID, new: NodeID)

    /// Who joins; where nobody does, who leaves.
    package var node: NodeID {
        switch self {
        case .add(let node, _), .remove(let node), .replace(_, let node): node
        }
    }

    package var joiner: NodeID? {
        switch self {
        case .add(let node, _), .replace(_, let node): node
        case .remove: nil
        }
    }

    package var leaver: NodeID? {
        switch self {
        case .remove(let node), .replace(let node, _): node
        case .add: nil
        }
    }

    /// The ring that this change makes of another one.
    package func applied(to ring: Ring) throws(RingChangeError) -> Ring {
        switch self {
        case .add(let node, let positions):
            precondition(!positions.isEmpty, "a node joins somewhere")
            if ring.contains(node) { throw .alreadyMember(node, at: ring.positions(of: node)) }
            if ring.nodes.count >= Ring.nodeLimit { throw .tooManyNodes }
            var changed = ring
            for position in positions {
                guard let next = changed.adding(node, at: position) else {
                    throw .positionTaken(position, by: changed.node(at: position) ?? node)
                }
                changed = next
            }
            return changed
        case .remove(let node):
            guard ring.contains(node) else { throw .unknownNode(node) }
            let changed = ring.removing(node)
            if changed.isEmpty { throw .lastNode(node) }
            return changed
        case .replace(let old, let new):
            if ring.contains(new) { throw .alreadyMember(new, at: ring.positions(of: new)) }
            guard ring.contains(old) else { throw .unknownNode(old) }
            return ring.replacing(old, by: new)
        }
    }

    /// `position`, alone, is what earlier versions wrote, and what the last change of many a kept document is.
    private enum CodingKeys: String, CodingKey { case kind, node, position, positions, replaces }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        let node = try container.decode(NodeID.self, forKey: .node)
        switch try container.decode(String.self, forKey: .kind) {
        case "add":
            let numbers =
                try container.decodeIfPresent([Int].self, forKey: .positions)
                ?? [container.decode(Int.self, forKey: .position)]
            let positions = numbers.compactMap { Position($0) }
            guard !numbers.isEmpty, positions.count == numbers.count,
                zip(positions, positions.dropFirst()).allSatisfy({ $0 < $1 })
            else {
                throw DecodingError.dataCorruptedError(
                    forKey: .positions, in: container, debugDescription: "positions are 0…9999, ascending")
            }
            self = .add(node: node, positions: positions)
        case "remove": self = .remove(node: node)
        case "replace": self = .replace(old: try container.decode(NodeID.self, forKey: .replaces), new: node)
        case let kind:
            throw DecodingError.dataCorruptedError(
                forKey: .kind, in: container, debugDescription: "no such change: \(kind)")
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(node, forKey: .node)
        switch self {
        case .add(_, let positions):
            try container.encode("add", forKey: .kind)
            try container.encode(positions.map { Int($0.value) }, forKey: .positions)
        case .remove: try container.encode("remove", forKey: .kind)
        case .replace(let old, _):
            try container.encode("replace", forKey: .kind)
            try container.encode(old, forKey: .replaces)
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
    /// All that would hold so many slots are gone for good.
    case nobodyLeft(slots: Int)
    /// Only so many positions of the ring are free.
    case notEnoughPositions(free: Int)
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
