// SPDX-License-Identifier: Apache-2.0

/// Deletes many keys in a row: all requests of a chunk first, then all answers, each looked at.
package struct BulkDelete: Sendable {
    private static let timeoutMilliseconds = 1000

    private let endpoint: MemcachedEndpoint

    package init(_ endpoint: MemcachedEndpoint) { self.endpoint = endpoint }

    /// Deletes these keys of a scan; those that are gone already are no failure.
    package func delete(_ keys: KeyArena, in range: Range<Int>) async throws {
        guard !range.isEmpty else { return }
        let endpoint = endpoint
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            OwnThread.start(named: "delete") {
                continuation.resume(with: Result { try BulkDelete.delete(keys, range, endpoint) })
            }
        }
    }

    private static func delete(
        _ keys: KeyArena, _ range: Range<Int>, _ endpoint: MemcachedEndpoint
    ) throws(MemcachedError) {
        var connection = try TextConnection(endpoint, timeoutMilliseconds: timeoutMilliseconds)
        var request: [UInt8] = []
        for index in range {
            request.append(contentsOf: "delete ".utf8)
            request.append(contentsOf: keys.bytes[keys.range(of: index)])
            request.append(contentsOf: "\r\n".utf8)
        }
        try connection.send(request)
        var answers = 0
        var line: [UInt8] = []
        var unexpected: String?
        while answers < range.count, unexpected == nil {
            try connection.receive { bytes in
                for byte in bytes {
                    guard byte == 0x0a else {
                        line.append(byte)
                        continue
                    }
                    answers += 1
                    if !line.elementsEqual("DELETED\r".utf8), !line.elementsEqual("NOT_FOUND\r".utf8) {
                        unexpected = String(decoding: line.prefix(80), as: UTF8.self)
                    }
                    line.removeAll(keepingCapacity: true)
                }
            }
        }
        if let unexpected { throw .protocolViolation(unexpected) }
    }
}
