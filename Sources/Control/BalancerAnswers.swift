// SPDX-License-Identifier: Apache-2.0

package import HashRing

/// A server of HAProxy's backend, as its admin socket shows it.
package struct BalancerServer: Hashable, Sendable {
    package let name: String
    /// Nil where its address is no literal one, and then it is none of ours.
    package let node: NodeID?
    package let isInMaintenance: Bool
    package let isDraining: Bool
    /// Requests that it is answering or that wait for it.
    package var requests: Int

    package init(
        name: String, node: NodeID?, isInMaintenance: Bool = false, isDraining: Bool = false, requests: Int = 0
    ) {
        self.name = name
        self.node = node
        self.isInMaintenance = isInMaintenance
        self.isDraining = isDraining
        self.requests = requests
    }
}

/// Reads what HAProxy's admin socket answers.
package enum BalancerAnswers {
    package struct Malformed: Error, Hashable {
        package let what: String
    }

    /// Bits of `srv_admin_state` (HAProxy's management guide, "show servers state"): maintenance that was forced,
    /// inherited, configured or comes of a name that has no address; draining that was forced or inherited.
    private static let maintenanceBits = 0x01 | 0x02 | 0x04 | 0x20 | 0x40
    private static let drainBits = 0x08 | 0x10

    /// `show servers state BACKEND`.
    package static func servers(_ text: String) throws(Malformed) -> [BalancerServer] {
        var lines = text.split(separator: "\n").map(String.init)
        guard lines.first == "1", lines.count >= 2, lines[1].hasPrefix("# ") else {
            throw Malformed(what: "no list of servers: \(text.prefix(200))")
        }
        let titles = lines[1].dropFirst(2).split(separator: " ").map(String.init)
        lines.removeFirst(2)
        guard let name = titles.firstIndex(of: "srv_name"), let address = titles.firstIndex(of: "srv_addr"),
            let state = titles.firstIndex(of: "srv_admin_state"), let port = titles.firstIndex(of: "srv_port")
        else { throw Malformed(what: "servers without names, addresses or states") }
        var servers: [BalancerServer] = []
        for line in lines {
            let fields = line.split(separator: " ").map(String.init)
            guard fields.count > max(name, address, state, port), let bits = Int(fields[state]) else {
                throw Malformed(what: "a server that can't be read: \(line)")
            }
            let host = fields[address].contains(":") ? "[\(fields[address])]" : fields[address]
            servers.append(
                BalancerServer(
                    name: fields[name], node: NodeID("\(host):\(fields[port])"),
                    isInMaintenance: bits & maintenanceBits != 0, isDraining: bits & drainBits != 0))
        }
        return servers
    }

    /// `show stat`: how many requests each server of the backend has, under way and waiting.
    package static func requests(_ text: String, backend: String) throws(Malformed) -> [String: Int] {
        let lines = text.split(separator: "\n").map(String.init)
        guard let first = lines.first, first.hasPrefix("# ") else {
            throw Malformed(what: "no statistics: \(text.prefix(200))")
        }
        let titles = first.dropFirst(2).split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        guard let proxy = titles.firstIndex(of: "pxname"), let server = titles.firstIndex(of: "svname"),
            let current = titles.firstIndex(of: "scur"), let queued = titles.firstIndex(of: "qcur")
        else { throw Malformed(what: "statistics without requests") }
        var requests: [String: Int] = [:]
        for line in lines.dropFirst() {
            let fields = line.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
            guard fields.count > max(proxy, server, current, queued), fields[proxy] == backend else { continue }
            // (Which add up, whatever they say.)
            requests[fields[server]] = [current, queued].reduce(0) { $0 + Int(UInt32(fields[$1]) ?? 0) }
        }
        return requests
    }

    /// `show map`: the maps' names, by which they are addressed.
    package static func mapNames(_ text: String) -> [String] {
        text.split(separator: "\n").compactMap { line in
            guard !line.hasPrefix("#"), let open = line.firstIndex(of: "("), let close = line.firstIndex(of: ")"),
                open < close
            else { return nil }
            return String(line[line.index(after: open)..<close])
        }
    }

    /// `show map NAME`: keys and values. (Each line begins with a reference.)
    package static func mapEntries(_ text: String) -> [String] {
        text.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ", maxSplits: 1)
            return fields.count == 2 && fields[0].hasPrefix("0x") ? String(fields[1]) : nil
        }
    }

    /// `prepare map`: the version that the new map gets.
    package static func preparedVersion(_ text: String) throws(Malformed) -> Int {
        guard let digits = text.split(separator: ":").last?.split(whereSeparator: \.isWhitespace).first,
            text.contains("version"), let version = Int(digits)
        else { throw Malformed(what: "no version of a map: \(text.prefix(200))") }
        return version
    }
}
