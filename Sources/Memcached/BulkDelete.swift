// SPDX-License-Identifier: Apache-2.0

/// Deletes many items that a scan has found, a chunk of them in one round trip.
///
/// Each is deleted only as long as it is the one that was found (meta delete with its cas token), so that a delete
/// which comes late, from the socket of a memcached that hung, can't take a pair with it that was written since.
package struct BulkDelete: Sendable {
    private static let timeoutMilliseconds = 1000
    private static let chunkKeys = 128
    private static let longestLine = 128

    private let endpoint: MemcachedEndpoint

    package init(_ endpoint: MemcachedEndpoint) { self.endpoint = endpoint }

    /// Deletes these items; those that are gone are no failure.
    /// - Returns: how many are there still, with another token: overwritten, or moved by memcached to another page.
    @discardableResult
    package func delete(_ keys: ScannedKeys, in range: Range<Int>) async throws -> Int {
        guard !range.isEmpty else { return 0 }
        let endpoint = endpoint
        return try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Int, any Error>) in
            OwnThread.start(named: "delete") {
                continuation.resume(with: Result { try BulkDelete.delete(keys, range, endpoint) })
            }
        }
    }

    private static func delete(
        _ keys: ScannedKeys, _ range: Range<Int>, _ endpoint: MemcachedEndpoint
    ) throws(MemcachedError) -> Int {
        var left = 0
        var connection = try TextConnection(endpoint, timeoutMilliseconds: timeoutMilliseconds, bufferBytes: 4096)
        for start in stride(from: range.lowerBound, to: range.upperBound, by: chunkKeys) {
            left += try delete(keys, start..<min(start + chunkKeys, range.upperBound), &connection)
        }
        return left
    }

    /// In quiet mode memcached says nothing of what it deleted or did not find; the answer to the no-op behind all says
    /// that they were done. What it says of the others fits into a socket's buffer, so that it never waits for us.
    private static func delete(
        _ keys: ScannedKeys, _ range: Range<Int>, _ connection: inout TextConnection
    ) throws(MemcachedError) -> Int {
        var request: [UInt8] = []
        for index in range {
            request.append(contentsOf: "md ".utf8)
            request.append(contentsOf: keys.name(of: index))
            request.append(contentsOf: " q C\(keys.token(of: index))\r\n".utf8)
        }
        request.append(contentsOf: "mn\r\n".utf8)
        try connection.send(request)
        var lines = LineReader(longest: longestLine)
        while lines.last != "MN" {
            try connection.receive { lines.take($0) }
            // `EX`: another token. `HD`, `NF`: from a memcached that is not as quiet.
            let unexpected = lines.all.first { !["EX", "HD", "NF", "MN"].contains($0) }
            guard unexpected == nil, !lines.isOverlong, lines.count <= range.count + 1 else {
                throw .protocolViolation(unexpected ?? "more answers than requests")
            }
        }
        guard lines.isAtLineEnd else { throw .protocolViolation("more answers than requests") }
        return lines.all.count { $0 == "EX" }
    }
}
