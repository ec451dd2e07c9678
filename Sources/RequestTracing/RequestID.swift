// SPDX-License-Identifier: Apache-2.0

private import KeyValue

/// What HAProxy, or the client, calls a request (`X-Request-ID`), so that its log lines are found on every node:
/// letters, digits, `.`, `_` and `-`, and so many of them that no two requests are called the same by chance.
package struct RequestID: Hashable, Sendable, CustomStringConvertible {
    package let description: String

    /// Nil for anything else, which is ignored: nothing that a client sends gets into a log but this, and its trace.
    package init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Limits.requestIDBytes.lowerBound, bytes.count <= Limits.requestIDBytes.upperBound else {
            return nil
        }
        for byte in bytes where !RequestID.isAllowed(byte) { return nil }
        self.description = String(decoding: bytes, as: UTF8.self)
    }

    package init?(_ text: some StringProtocol) {
        var text = String(text)
        guard let id = text.withUTF8({ RequestID(UnsafeRawBufferPointer($0)) }) else { return nil }
        self = id
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        // (Each request through HAProxy has one: as bits, of the two halves of ASCII.)
        let half: UInt64 = byte < 64 ? 0x03FF_6000_0000_0000 : byte < 128 ? 0x07FF_FFFE_87FF_FFFE : 0
        return half >> UInt64(byte & 63) & 1 == 1
    }
}
