// SPDX-License-Identifier: Apache-2.0

package import KeyValue

/// The header fields that are about a value as it is sent: what a PUT says of it, and which part of it a GET wants
/// (RFC 9110, sections 8 and 14).
package struct RepresentationFields: Hashable, Sendable {
    package var contentType: String?
    /// `Content-Encoding` names another than `identity`.
    package var isEncoded = false
    /// There is a `Content-Range`.
    package var isPartial = false
    /// The value of `Range`.
    package var range: String?
    /// The value of `If-Range`.
    package var ifRange: String?

    package init() {}

    /// Which part of a value is wanted.
    package enum Wanted: Hashable, Sendable {
        case whole
        case range(Range<Int>)
        /// None of the wanted bytes exists.
        case unsatisfiable
    }

    /// Why a request with these fields is not done; nil where nothing speaks against it.
    package func refusal(of method: Methods) -> Answer? {
        guard method == .put else { return nil }
        if isPartial { return ErrorAnswer.partialContent }
        if isEncoded { return ErrorAnswer.encodedContent }
        if let contentType, !RepresentationFields.isType(contentType) { return ErrorAnswer.badContentType }
        return nil
    }

    /// Whether a header field may say it: printable ASCII, not too long.
    static func isType(_ type: String) -> Bool {
        (1...Limits.contentTypeBytes).contains(type.utf8.count)
            && type.utf8.allSatisfy { (0x20...0x7E).contains($0) }
    }

    /// What an envelope keeps: nothing where it is what values are given out as anyway.
    package var storedContentType: String? { contentType == "application/octet-stream" ? nil : contentType }

    /// - Parameters:
    ///   - length: of the value, in bytes.
    ///   - version: of the pair; `If-Range` with another one wants the whole.
    package func part(of length: Int, version: Version) -> Wanted {
        guard let range else { return .whole }
        if let ifRange, ifRange != "\"\(version)\"" { return .whole }
        return RepresentationFields.part(range, of: length)
    }

    /// One range of bytes: `bytes=2-5`, `bytes=2-`, `bytes=-5`. Anything else is as if it had not been said, several
    /// ranges too: a server may leave a Range alone.
    private static func part(_ text: String, of length: Int) -> Wanted {
        let unit = "bytes="
        guard text.utf8.count > unit.utf8.count, text.prefix(unit.count).lowercased() == unit else { return .whole }
        let ends = text.dropFirst(unit.count).split(separator: "-", omittingEmptySubsequences: false)
        guard ends.count == 2, let first = number(ends[0]), let last = number(ends[1]) else { return .whole }
        switch (first, last) {
        case (.absent, .absent): return .whole
        case (.absent, .value(let count)):
            return count == 0 || length == 0 ? .unsatisfiable : .range(max(0, length - count)..<length)
        case (.value(let first), .absent): return first < length ? .range(first..<length) : .unsatisfiable
        case (.value(let first), .value(let last)):
            guard first <= last else { return .whole }
            return first < length ? .range(first..<min(last, length - 1) + 1) : .unsatisfiable
        }
    }

    private enum Number {
        case absent
        case value(Int)
    }

    /// Digits, or nothing at all; more than fit are as good as the largest number.
    private static func number(_ text: Substring) -> Number? {
        let digits = text.drop { $0 == " " }
        if digits.isEmpty { return .absent }
        guard digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return .value(min(Int(digits) ?? .max, .max / 2))
    }
}
