// SPDX-License-Identifier: Apache-2.0

package import KeyValue

/// Reads `If-Match` and `If-None-Match` (RFC 9110, sections 8.8.3 and 13.1): `*`, or a list of entity tags.
///
/// Our own tags are versions. Others may be sent, too; they match nothing here.
package enum EntityTagParser {
    /// - Parameters:
    ///   - ifMatch: the values of all fields of this name.
    ///   - ifNoneMatch: likewise.
    /// - Returns: nil where one is malformed.
    static func precondition(ifMatch: [String], ifNoneMatch: [String]) -> Precondition? {
        var precondition = Precondition()
        if !ifMatch.isEmpty {
            guard let tags = tags(in: ifMatch, takesWeak: false) else { return nil }
            precondition.ifMatch = tags
        }
        if !ifNoneMatch.isEmpty {
            guard let tags = tags(in: ifNoneMatch, takesWeak: true) else { return nil }
            precondition.ifNoneMatch = tags
        }
        return precondition
    }

    /// - Parameters:
    ///   - values: of all fields of one name; together they are one list.
    ///   - takesWeak: whether `W/"…"` may match what `"…"` does (`If-None-Match`), or nothing (`If-Match`).
    /// - Returns: nil where it is malformed, or names more than `Limits.entityTags`.
    package static func tags(in values: [String], takesWeak: Bool) -> Precondition.Tags? {
        if values.count == 1, blankless(Array(values[0].utf8)[...]) == [UInt8(ascii: "*")] { return .any }
        var versions: [Version] = []
        var count = 0
        for value in values {
            var rest = blankless(Array(value.utf8)[...])
            while !rest.isEmpty {
                // A list may have empty elements (section 5.6.1.2).
                if rest.first == UInt8(ascii: ",") {
                    rest = blankless(rest.dropFirst())
                    continue
                }
                guard let (tag, isWeak) = takeTag(&rest) else { return nil }
                count += 1
                guard count <= Limits.entityTags else { return nil }
                if takesWeak || !isWeak, let version = Version(tag) { versions.append(version) }
                rest = blankless(rest)
                guard rest.isEmpty || rest.first == UInt8(ascii: ",") else { return nil }
            }
        }
        return count > 0 ? .versions(versions) : nil
    }

    /// The tag at the beginning, between its quotation marks.
    private static func takeTag(_ rest: inout ArraySlice<UInt8>) -> (tag: ArraySlice<UInt8>, isWeak: Bool)? {
        let isWeak = rest.starts(with: "W/".utf8)
        if isWeak { rest = rest.dropFirst(2) }
        guard rest.first == UInt8(ascii: "\"") else { return nil }
        rest = rest.dropFirst()
        let tag = rest.prefix { $0 != UInt8(ascii: "\"") }
        guard tag.count < rest.count, tag.allSatisfy({ $0 >= 0x21 && $0 != 0x7F }) else { return nil }
        rest = rest.dropFirst(tag.count + 1)
        return (tag, isWeak)
    }

    private static func blankless(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        let isBlank = { (byte: UInt8) in byte == 0x20 || byte == 0x09 }
        var rest = bytes.drop(while: isBlank)
        while let last = rest.last, isBlank(last) { rest.removeLast() }
        return rest
    }
}
