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

    package init(
        node: NodeID, secrets: PeerSecrets? = nil, allowed: PeerAllowList = .usual, isInsecure: Bool = false
    ) {
        self.node = node
        self.secrets = secrets
        self.allowed = allowed
        self.isInsecure = isInsecure
    }
}
