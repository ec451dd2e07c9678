// SPDX-License-Identifier: Apache-2.0

/// Deletes many items that a scan has found, some chunks of them under way at once.
///
/// Each is deleted only as long as it is the one that was found (meta delete with its cas token), so that a delete
/// which comes late, from the socket of a memcached that hung, can't take a pair with it that was written since.
package struct BulkDelete: Sendable {
    private static let timeoutMilliseconds = 1000
    private static let chunkKeys = 32
    /// So that memcached works on some while the next one is made.
    private static let chunksUnderway = 4

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
        var connection = try TextConnection(endpoint, timeoutMilliseconds: timeoutMilliseconds, bufferBytes: 4096)
        var replies = DeleteReplies()
        for start in stride(from: range.lowerBound, to: range.upperBound, by: chunkKeys) {
            if replies.chunksUnderway == chunksUnderway { try replies.receiveEnd(from: &connection) }
            let chunk = start..<min(start + chunkKeys, range.upperBound)
            try connection.send(request(keys, chunk))
            replies.isSent(chunk.count)
        }
        while replies.chunksUnderway > 0 { try replies.receiveEnd(from: &connection) }
        return replies.overwritten
    }

    /// In quiet mode memcached says nothing of what it deleted or did not find; the answer to the no-op behind all says
    /// that they were done. What it says of the others, of all chunks that are under way, fits into a socket's buffer,
    /// so that it never waits for us.
    private static func request(_ keys: ScannedKeys, _ chunk: Range<Int>) -> [UInt8] {
        var request: [UInt8] = []
        for index in chunk {
            request.append(contentsOf: "md ".utf8)
            request.append(contentsOf: keys.name(of: index))
            request.append(contentsOf: " q C".utf8)
            request.append(contentsOf: String(keys.token(of: index)).utf8)
            request.append(contentsOf: "\r\n".utf8)
        }
        request.append(contentsOf: "mn\r\n".utf8)
        return request
    }
}

/// What memcached says to the chunks of a bulk delete.
private struct DeleteReplies {
    private static let longestLine = 128

    private(set) var chunksUnderway = 0
    /// How many items have another token.
    private(set) var overwritten = 0
    private var lines = LineReader(longest: longestLine)
    private var linesRead = 0
    /// Of all chunks so far.
    private var linesAllowed = 0

    mutating func isSent(_ count: Int) {
        chunksUnderway += 1
        linesAllowed += count + 1
    }

    /// Waits until memcached is done with the oldest chunk.
    mutating func receiveEnd(from connection: inout TextConnection) throws(MemcachedError) {
        let before = chunksUnderway
        while chunksUnderway == before {
            try connection.receive { lines.take($0) }
            guard !lines.isOverlong, lines.count <= linesAllowed else {
                throw .protocolViolation("more answers than requests")
            }
            for line in lines.all[linesRead...] {
                switch line {
                case "MN": chunksUnderway -= 1
                // Another token.
                case "EX": overwritten += 1
                // From a memcached that is not as quiet.
                case "HD", "NF": break
                default: throw .protocolViolation(line)
                }
            }
            linesRead = lines.count
            guard chunksUnderway > 0 || chunksUnderway == 0 && lines.isAtLineEnd else {
                throw .protocolViolation("more answers than requests")
            }
        }
    }
}
