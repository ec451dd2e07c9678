// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import NIOCore

/// Nodes, groups and envelopes that the quorums' tests are about.
enum QuorumFixtures {
    static let nodes = (1...6).compactMap { NodeID("10.0.0.\($0):5000") }

    static func group(_ members: Int...) -> ReplicaGroup { ReplicaGroup(members: members.map { nodes[$0] }) }

    static func version(_ time: UInt64) -> Version { Version(time: time, writer: 1) }

    static func envelope(_ time: UInt64) -> Envelope {
        guard let key = Key("k") else { preconditionFailure("not empty") }
        return Envelope(key: key, storedKey: StoredKey(key), value: ByteBuffer(integer: time), version: version(time))
    }
}

extension QuorumWrite {
    /// An answer to whichever phase runs.
    mutating func received(_ outcome: Outcome, from node: NodeID) -> Action {
        let action = receivedVersion(outcome, from: node)
        return action == .wait ? receivedAcknowledgement(outcome, from: node) : action
    }
}
