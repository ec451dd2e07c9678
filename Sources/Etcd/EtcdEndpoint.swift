// SPDX-License-Identifier: Apache-2.0

/// Where one member of etcd's takes requests: `http://host:port` or `https://host:port`.
package struct EtcdEndpoint: Hashable, Sendable, CustomStringConvertible {
    package let description: String

    /// Nil where the text is anything else, such as an address with a path.
    package init?(_ text: some StringProtocol) {
        guard let scheme = ["http://", "https://"].first(where: { text.hasPrefix($0) }) else { return nil }
        let authority = text.dropFirst(scheme.count)
        guard let colon = authority.lastIndex(of: ":") else { return nil }
        let port = authority[authority.index(after: colon)...]
        guard (1...5).contains(port.utf8.count), port.allSatisfy({ $0.isASCII && $0.isNumber }), port.first != "0",
            UInt16(port) != nil, EtcdEndpoint.isHost(authority[..<colon])
        else { return nil }
        description = String(text)
    }

    /// A name or IPv4 address, or an IPv6 address in brackets.
    private static func isHost(_ text: some StringProtocol) -> Bool {
        guard !text.isEmpty, text.utf8.count <= 255 else { return false }
        if text.hasPrefix("["), text.hasSuffix("]") {
            let inner = text.dropFirst().dropLast()
            return inner.contains(":") && inner.allSatisfy { $0.isASCII && ($0.isHexDigit || $0 == ":" || $0 == ".") }
        }
        return text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "." || $0 == "-") }
    }

    /// Several, between commas; nil where there is none, or one is none.
    package static func list(_ text: String) -> [EtcdEndpoint]? {
        var endpoints: [EtcdEndpoint] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            guard let endpoint = EtcdEndpoint(part.drop { $0 == " " }), !endpoints.contains(endpoint) else {
                return nil
            }
            endpoints.append(endpoint)
        }
        return endpoints
    }
}
