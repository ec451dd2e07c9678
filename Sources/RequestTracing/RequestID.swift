// SPDX-License-Identifier: Apache-2.0

private import KeyValue

/// What HAProxy, or the client, calls a request (`X-Request-ID`), so that its log lines are found on every node:
/// letters, digits, `.`, `_` and `-`, and so many of them that no two requests are called the same by chance.
package struct RequestID: Hashable, Sendable, CustomStringConvertible {
    package let description: String

    /// Nil for anything else, which is ignored: nothing that a client sends gets into a log but this.
    package init?(_ bytes: UnsafeRawBufferPointer) {
        guard Limits.requestIDBytes.contains(bytes.count), bytes.allSatisfy(RequestID.isAllowed) else { return nil }
        self.description = String(decoding: bytes, as: UTF8.self)
    }

    package init?(_ text: some StringProtocol) {
        var text = String(text)
        guard let id = text.withUTF8({ RequestID(UnsafeRawBufferPointer($0)) }) else { return nil }
        self = id
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"): true
        default: false
        }
    }
}
