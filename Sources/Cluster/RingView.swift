// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import Memcached

/// The ring as one worker acts on it: a document made ready for look-ups, and the memory on which it stands.
package struct RingView: Sendable {
    /// What this host's memcached must say of itself while this view holds.
    package let stamp: HostStamp
    /// Nil while the node has no ring.
    package let table: RoutingTable?
    /// Whether this node must not answer reads of moving slots: they rest on a memory of its that is gone.
    package let isFenced: Bool

    package init(stamp: HostStamp, document: RingDocument?, node: NodeID) {
        self.stamp = stamp
        self.table = document.flatMap { $0.ring.isEmpty ? nil : RoutingTable($0) }
        self.isFenced = document.map { RingView.isFenced($0, node, stamp.generation) } ?? false
    }

    package var document: RingDocument? { table?.document }

    private static func isFenced(_ document: RingDocument, _ node: NodeID, _ generation: Generation) -> Bool {
        guard let transition = document.transition, let fence = transition.fence(of: node) else { return false }
        switch transition.step {
        case .copying, .settling, .retreating: return fence != generation
        case .crossing, .cleaning: return false
        }
    }
}
