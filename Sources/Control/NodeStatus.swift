// SPDX-License-Identifier: Apache-2.0

package import HashRing
private import KeyValue

/// What kvctl reads of `GET /status`; whatever else is there is left alone, so that it may be of another version.
package struct NodeStatus: Decodable, Sendable {
    package let version: String
    package let node: NodeID
    package let uptimeSeconds: Int
    /// 0 where the node has no ring.
    package let epoch: Epoch
    package let isRecovering: Bool
    package let hints: Hints
    package let replicas: Int
    package let ring: PositionsOfNodes
    package let standbys: [NodeID]
    package let transition: Change?
    package let lastChange: FinishedChange?
    package let workers: [Worker]
    package let memcached: Memcached
    /// Of the last snapshot: what tells how many pairs the node has, about.
    package let snapshot: Snapshot?

    package struct Hints: Decodable, Sendable {
        package let waiting: Int
    }

    package struct Worker: Decodable, Sendable {
        package let pid: Int32
    }

    package struct Memcached: Decodable, Sendable {
        package let isAnswering: Bool
    }

    package struct Snapshot: Decodable, Sendable {
        package let pairs: Int?
        package let bytes: Int?
    }

    package struct Change: Decodable, Sendable {
        package let id: String
        package let change: RingChange
        package let step: RingTransition.Step
        package let abortReason: String?
        package let from: PositionsOfNodes
        package let to: PositionsOfNodes
        package let progress: [Progress]
    }

    /// One node's part of the step that the change is at.
    package struct Progress: Decodable, Sendable {
        package let node: NodeID
        package let pairsFound: Int
        package let pairsDone: Int
        package let pairsMoved: Int
        package let bytesMoved: Int
        package let seconds: Double

        private enum Field: String, CodingKey { case node, pairsFound, pairsDone, pairsMoved, bytesMoved, seconds }

        package init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: Field.self)
            node = try container.decode(NodeID.self, forKey: .node)
            pairsFound = try container.decodeCount(forKey: .pairsFound)
            pairsDone = try container.decodeCount(forKey: .pairsDone)
            pairsMoved = try container.decodeCount(forKey: .pairsMoved)
            bytesMoved = try container.decodeCount(forKey: .bytesMoved)
            seconds = try container.decode(Double.self, forKey: .seconds)
        }
    }

    /// As whoever asks for the ring's document has it.
    package var document: RingDocument {
        RingDocument(epoch: epoch, ring: ring.ring, replicas: max(replicas, 1), standbys: standbys)
    }
}

/// A ring as answers have it, `{"3000":"ip:port"}`, empty where there is none.
package struct PositionsOfNodes: Decodable, Hashable, Sendable {
    package let ring: Ring

    package init(ring: Ring) { self.ring = ring }

    package init(from decoder: any Decoder) throws {
        self.ring = try Ring(from: decoder)
    }
}

/// What `GET /hash_ring` answers.
package struct RingAnswer: Decodable, Hashable, Sendable {
    package let ring: PositionsOfNodes
    package let epoch: Epoch
    package let replicas: Int
    package let standbys: [NodeID]

    package init(ring: Ring, epoch: Epoch, replicas: Int, standbys: [NodeID]) {
        self.ring = PositionsOfNodes(ring: ring)
        self.epoch = epoch
        self.replicas = replicas
        self.standbys = standbys
    }

    /// All that are told of the ring.
    package var everybody: [NodeID] { Set(ring.ring.nodes + standbys).sorted() }
}

extension RingChange {
    /// For people.
    package var sentence: String {
        switch self {
        case .add(let node, let positions):
            positions.count == 1
                ? "add \(node) at \(positions[0])" : "add \(node) at \(positions.count) positions"
        case .remove(let node): "remove \(node)"
        case .replace(let old, let new): "replace \(old) by \(new)"
        }
    }
}
