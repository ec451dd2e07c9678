// SPDX-License-Identifier: Apache-2.0

/// Deletes many items that a scan has found: all requests of a chunk first, then all answers, each looked at.
///
/// Each is deleted only as long as it is the one that was found (meta delete with its cas token), so that a delete
/// which comes late, from the socket of a memcached that hung, can't take a pair with it that was written since.
package struct BulkDelete: Sendable {
    private static let timeoutMilliseconds = 1000
    /// Their answers fit into a socket's buffer, so that memcached never waits for them to be read.
    private static let chunkKeys = 512

    private let endpoint: MemcachedEndpoint

    package init(_ endpoint: MemcachedEndpoint) { self.endpoint = endpoint }

    /// Deletes these items; those that are gone, or were overwritten, are no failure.
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
        for start in stride(from: range.lowerBound, to: range.upperBound, by: chunkKeys) {
            try delete(keys, start..<min(start + chunkKeys, range.upperBound), &connection)
        }
    }

    private static func delete(
        _ keys: KeyArena, _ range: Range<Int>, _ connection: inout TextConnection
    ) throws(MemcachedError) {
        var request: [UInt8] = []
        for index in range {
            request.append(contentsOf: "md ".utf8)
            request.append(contentsOf: keys.bytes[keys.range(of: index)])
            request.append(contentsOf: " C\(keys.token(of: index))\r\n".utf8)
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
                    if !BulkDelete.isExpected(line) {
                        unexpected = String(decoding: line.prefix(80), as: UTF8.self)
                    }
                    line.removeAll(keepingCapacity: true)
                }
            }
        }
        if let unexpected { throw .protocolViolation(unexpected) }
    }

    /// `HD`: deleted. `NF`: gone. `EX`: overwritten.
    private static func isExpected(_ line: [UInt8]) -> Bool {
        guard line.count == 3, line[2] == 0x0d else { return false }
        return switch (line[0], line[1]) {
        case (UInt8(ascii: "H"), UInt8(ascii: "D")), (UInt8(ascii: "N"), UInt8(ascii: "F")),
            (UInt8(ascii: "E"), UInt8(ascii: "X")):
            true
        default: false
        }
    }
}
