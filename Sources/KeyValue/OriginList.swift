// SPDX-License-Identifier: Apache-2.0

/// Origins, as browsers name whom a page comes from (RFC 6454): some, or all there are.
package struct OriginList: Hashable, Sendable {
    /// Nil: any.
    private let origins: Set<String>?

    private static let limit = 64

    /// From `*`, or a list between commas: `https://example.com,http://localhost:8080`.
    /// - Returns: nil where it is neither.
    package init?(_ text: String) {
        if text == "*" {
            origins = nil
            return
        }
        let names = text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        guard names.count <= OriginList.limit, names.allSatisfy(OriginList.isOrigin) else { return nil }
        origins = Set(names)
    }

    package var hasAll: Bool { origins == nil }

    package func contains(_ origin: String) -> Bool { origins?.contains(origin) ?? true }

    /// A scheme and an authority: no path, not even a slash.
    private static func isOrigin(_ text: String) -> Bool {
        guard let scheme = ["https://", "http://"].first(where: { text.hasPrefix($0) }) else { return false }
        let authority = text.utf8.dropFirst(scheme.utf8.count)
        return !authority.isEmpty
            && authority.allSatisfy { byte in
                switch byte {
                case 0x61...0x7A, 0x30...0x39, UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: ":"),
                    UInt8(ascii: "["), UInt8(ascii: "]"):
                    true
                default: false
                }
            }
    }
}
