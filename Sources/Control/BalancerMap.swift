// SPDX-License-Identifier: Apache-2.0

package import HashRing

/// HAProxy's map from slots to servers: which servers hold a slot, the owner's first.
///
/// HAProxy sends a request to the first of them that is up by its own health checks. So the map changes with the ring
/// alone: a node that fails costs no swap, and is passed over in HAProxy's own time, also where nobody keeps the map.
package enum BalancerMap {
    /// A run of slots with the same servers: `0:3000 a:b:c`.
    package struct Line: Hashable, Sendable {
        package let slots: ClosedRange<UInt16>
        /// By name, the owner's first; between colons, which `field(1,:)` takes apart.
        package let servers: String

        package init(slots: ClosedRange<UInt16>, servers: String) {
            self.slots = slots
            self.servers = servers
        }

        package var key: String { "\(slots.lowerBound):\(slots.upperBound)" }
        package var text: String { "\(key) \(servers)" }
    }

    /// So many servers of a slot are looked at, as haproxy.cfg has `use-server` lines.
    package static let serversOfSlot = 3

    /// - Parameter name: a node's server; nil where it has none, and then it is left out.
    package static func lines(of ring: Ring, replicas: Int, name: (NodeID) -> String?) -> [Line] {
        var lines: [Line] = []
        for slots in Ring.segments(of: [ring]) {
            guard let slot = Slot(Int(slots.upperBound)) else { preconditionFailure("segments hold slots") }
            let holders = ring.preferenceList(of: slot, count: min(max(replicas, 1), serversOfSlot))
            let servers = holders.compactMap(name).joined(separator: ":")
            guard !servers.isEmpty else { continue }
            if let last = lines.last, last.servers == servers, last.slots.upperBound + 1 == slots.lowerBound {
                lines[lines.count - 1] = Line(slots: last.slots.lowerBound...slots.upperBound, servers: servers)
            } else {
                lines.append(Line(slots: slots, servers: servers))
            }
        }
        return lines
    }

    /// `n-10-0-0-7-5000`: what HAProxy takes as a name, and no two nodes share.
    package static func serverName(of node: NodeID) -> String {
        let host = node.host.map { $0 == "." || $0 == ":" ? "-" : $0 }
        return namePrefix + String(host) + "-\(node.port)"
    }

    /// Of the servers that were added at run time.
    package static let namePrefix = "n-"
}
