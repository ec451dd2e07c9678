// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import NIOCore

/// The nodes that did not answer this host's heartbeat, as one worker knows them: a breaker that all workers of the
/// host share. It opens where a heartbeat got no answer, is probed by the next one, and by every write, and closes by
/// itself where nobody does heartbeats.
package struct Silence: Sendable {
    private var nodes: Set<NodeID> = []
    private var end = NIODeadline.uptimeNanoseconds(0)

    package init() {}

    /// - Parameter end: when this is no news any longer.
    package mutating func heard(_ nodes: Set<NodeID>, until end: NIODeadline) {
        self.nodes = nodes
        self.end = end
    }

    package func contains(_ node: NodeID, at now: @autoclosure () -> NIODeadline = .now()) -> Bool {
        !nodes.isEmpty && nodes.contains(node) && end > now()
    }
}
