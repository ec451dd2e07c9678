// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import Memcached

/// The ring as one worker acts on it: a document made ready for look-ups, and the memory on which it stands.
///
/// (A class, as its table: every request takes hold of it.)
package final class RingView: Sendable {
    /// What this host's memcached must say of itself while this view holds.
    package let stamp: HostStamp
    /// Nil while the node has no ring.
    package let table: RoutingTable?
    /// Whether this node must not answer reads of moving slots: they rest on a memory of its that is gone.
    package let isFenced: Bool
    /// Whether it must not acknowledge writes either: see `HostMemory`.
    package let acknowledgesNothing: Bool

    /// Whether this node's memory was lost and has not been refilled: what it lacks says nothing.
    package var isRecovering: Bool { stamp.isRecovering }

    /// Whether this node must not say what it holds of a slot.
    func isForgetful(isMoving: Bool) -> Bool { isRecovering || isMoving && isFenced }

    package init(stamp: HostStamp, document: RingDocument?, node: NodeID) {
        self.stamp = stamp
        self.table = document.flatMap { $0.ring.isEmpty ? nil : RoutingTable($0) }
        let memory = HostMemory(node: node, generation: stamp.generation)
        self.isFenced = document.map { memory.isFenced(under: $0) } ?? false
        self.acknowledgesNothing = stamp.isRecovering && document.map { memory.isToWaitEmpty(under: $0) } ?? false
    }

    package var document: RingDocument? { table?.document }
}
