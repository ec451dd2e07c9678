// SPDX-License-Identifier: Apache-2.0

/// Where this host's memcached listens.
package enum MemcachedEndpoint: Hashable, Sendable, CustomStringConvertible {
    case unixSocket(path: String)
    case tcp(host: String, port: UInt16)

    /// The longest path that fits into a unix socket's address, in bytes.
    private static let pathBytes = 107

    /// `/path/to/socket` or `host:port`; nil for anything else.
    package init?(_ text: String) {
        if text.hasPrefix("/") {
            guard text.utf8.count <= MemcachedEndpoint.pathBytes, !text.utf8.contains(0) else { return nil }
            self = .unixSocket(path: text)
            return
        }
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]), port > 0,
            colon > text.startIndex
        else { return nil }
        self = .tcp(host: String(text[..<colon]), port: port)
    }

    package var description: String {
        switch self {
        case .unixSocket(let path): path
        case .tcp(let host, let port): "\(host):\(port)"
        }
    }
}
