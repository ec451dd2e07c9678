// SPDX-License-Identifier: Apache-2.0

private import Glibc

/// A node's name, its literal `ip:port` (`10.0.0.7:5000`, `[fd00::7]:5000`); never a host name, so that
/// nobody can make a node resolve what a client sent.
package struct NodeID: Hashable, Comparable, Sendable, CustomStringConvertible, Codable {
    /// The address alone, without brackets.
    package let host: String
    package let port: UInt16

    /// Nil where the text is not a literal IPv4 or bracketed IPv6 address and a port of 1…65535.
    package init?(_ text: some StringProtocol) {
        guard text.utf8.count <= 64, let colon = text.lastIndex(of: ":") else { return nil }
        let portText = text[text.index(after: colon)...]
        guard (1...5).contains(portText.utf8.count), portText.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            portText.first != "0", let port = UInt16(portText)
        else { return nil }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = String(host.dropFirst().dropLast())
            guard NodeID.isAddress(host, family: AF_INET6) else { return nil }
        } else {
            guard NodeID.isAddress(host, family: AF_INET) else { return nil }
        }
        self.host = host
        self.port = port
    }

    private init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// The same address, at a port so much higher; nil where ports end before that.
    package func shifted(by offset: Int) -> NodeID? {
        UInt16(exactly: Int(port) + offset).map { NodeID(host: host, port: $0) }
    }

    /// `inet_pton` reads text only: four decimal parts without leading zeros for IPv4, no short or octal forms.
    private static func isAddress(_ text: String, family: CInt) -> Bool {
        // A NUL would end the text for `inet_pton`, and hide what comes after it.
        guard !text.utf8.contains(0) else { return false }
        var address = in6_addr()
        return inet_pton(family, text, &address) == 1
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let node = NodeID(text) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not an ip:port: \(text)")
        }
        self = node
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }

    /// By address and port, which gives every member the same order in which to ask for promises.
    package static func < (left: NodeID, right: NodeID) -> Bool {
        (left.host, left.port) < (right.host, right.port)
    }

    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
