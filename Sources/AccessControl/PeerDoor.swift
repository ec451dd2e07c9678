// SPDX-License-Identifier: Apache-2.0

package import HashRing

/// Whom a node calls its peer.
package struct PeerDoor: Sendable {
    package let node: NodeID
    /// Nil: nobody proves anything.
    package let secrets: PeerSecrets?
    package let allowed: PeerAllowList
    /// Whether one that proves nothing is a peer all the same, while a cluster gets its first token.
    package let isInsecure: Bool
    /// How far above a node's port its peers call it, on all nodes; 0: there is one port for both.
    package let portOffset: Int

    package init(
        node: NodeID, secrets: PeerSecrets? = nil, allowed: PeerAllowList = .usual, isInsecure: Bool = false,
        portOffset: Int = 0
    ) {
        self.node = node
        self.secrets = secrets
        self.allowed = allowed
        self.isInsecure = isInsecure
        self.portOffset = portOffset
    }

    /// Where a node is called; nil where there is no such port.
    package func entrance(of node: NodeID) -> NodeID? { node.shifted(by: portOffset) }
}
