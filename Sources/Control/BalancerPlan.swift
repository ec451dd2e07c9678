// SPDX-License-Identifier: Apache-2.0

package import HashRing

/// The ring as HAProxy has to know it.
package struct BalancerRing: Hashable, Sendable {
    package let epoch: Epoch
    /// Whose owners answer reads now.
    package let ring: Ring
    package let replicas: Int
    /// All that are to be servers: of the ring, of both rings while it changes, and those that stand by.
    package let everybody: [NodeID]

    package init(epoch: Epoch, ring: Ring, replicas: Int, others: [NodeID] = []) {
        self.epoch = epoch
        self.ring = ring
        self.replicas = replicas
        everybody = Set(ring.nodes + others).sorted()
    }

    /// Nil where the node has no ring.
    package init?(_ status: NodeStatus) {
        guard !status.ring.ring.isEmpty else { return nil }
        let change = status.transition.map { $0.from.ring.nodes + $0.to.ring.nodes } ?? []
        self.init(
            epoch: status.epoch, ring: status.ring.ring, replicas: status.replicas, others: status.standbys + change)
    }
}

/// What HAProxy still lacks to be as the ring is. A value of one look at both: whatever goes wrong on the way, the next
/// look begins anew.
///
/// In this order, so that no request is sent where nobody answers: newcomers become servers, then the map names them;
/// the map lets go of who has left, and only then its server is drained, and taken away once it is idle.
package struct BalancerPlan: Hashable, Sendable {
    package enum Action: Hashable, Sendable {
        case add(name: String, NodeID)
        /// Back from having been drained.
        case enable(name: String)
        case swapMap([BalancerMap.Line])
        case drain(name: String)
        /// Drained, and idle or overdue: HAProxy takes away only servers in maintenance.
        case maintain(name: String)
        /// Fails while connections are left; so it is tried again.
        case remove(name: String)
    }

    package let actions: [Action]

    /// - Parameters:
    ///   - leaving: servers that were put aside on their way out.
    ///   - overdue: those of them that were drained for long enough; what is under way there is not waited for.
    package init(
        ring: BalancerRing, servers: [BalancerServer], mapEntries: [String], leaving: Set<String> = [],
        overdue: Set<String> = []
    ) {
        var actions: [Action] = []
        let wanted = ring.everybody
        var names: [NodeID: String] = [:]
        for server in servers {
            guard let node = server.node, names[node] == nil else { continue }
            names[node] = server.name
        }
        let taken = Set(servers.map(\.name))
        for node in wanted where names[node] == nil {
            let name = BalancerMap.serverName(of: node)
            // (A server of that name at another address is somebody else's.)
            guard !taken.contains(name) else { continue }
            actions.append(.add(name: name, node))
            names[node] = name
        }
        for server in servers {
            guard let node = server.node, wanted.contains(node) else { continue }
            // What an operator has put into maintenance stays there; only this drains.
            let isOurs = server.name.hasPrefix(BalancerMap.namePrefix) || leaving.contains(server.name)
            if server.isInMaintenance ? isOurs : server.isDraining { actions.append(.enable(name: server.name)) }
        }
        let lines = BalancerMap.lines(of: ring.ring, replicas: ring.replicas) { names[$0] }
        if lines.map(\.text) != mapEntries { actions.append(.swapMap(lines)) }
        for server in servers {
            guard let node = server.node, !wanted.contains(node) else { continue }
            if server.isInMaintenance {
                actions.append(.remove(name: server.name))
            } else if !server.isDraining {
                actions.append(.drain(name: server.name))
            } else if server.requests == 0 || overdue.contains(server.name) {
                actions.append(.maintain(name: server.name))
            }
        }
        self.actions = actions
    }
}
