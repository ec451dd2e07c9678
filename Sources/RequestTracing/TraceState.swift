// SPDX-License-Identifier: Apache-2.0

private import KeyValue

/// What tracing systems keep of their own in a trace, as W3C's Trace Context (level 1, section 3.3) writes it in
/// `tracestate`: up to 32 members `key=value`, the latest system's first. Nothing here reads or adds
/// one; they go along.
package struct TraceState: Hashable, Sendable {
    /// Each as it came, without the blanks around it.
    private let members: [String]

    private static let mostMembers = 32
    /// Where not all fit, those longer than this go first.
    private static let longMemberBytes = 128
    private static let valueBytes = 256
    private static let keyBytes = 256
    private static let tenantBytes = 241
    private static let systemBytes = 14

    /// - Parameter field: what all fields of that name say, in their order, with commas between them.
    /// - Returns: nil where a member is malformed, where there are too many, and where there is none: then none goes
    ///   along.
    package init?(_ field: some StringProtocol) { self.init(field, separator: UInt8(ascii: ",")) }

    private init?(_ text: some StringProtocol, separator: UInt8) {
        let members = text.utf8.split(separator: separator)
            .map { TraceState.trimmed(String(decoding: $0, as: UTF8.self)) }
            .filter { !$0.isEmpty }
        guard (1...TraceState.mostMembers).contains(members.count), members.allSatisfy(TraceState.isMember) else {
            return nil
        }
        self.members = TraceState.shortened(members)
        guard !self.members.isEmpty else { return nil }
    }

    /// Of too much the long members are left out, the last first, and then the last ones.
    private static func shortened(_ members: [String]) -> [String] {
        var members = members
        var length = members.reduce(members.count - 1) { $0 + $1.utf8.count }
        while length > Limits.traceStateBytes {
            let last = members.lastIndex { $0.utf8.count > longMemberBytes } ?? members.count - 1
            length -= members.remove(at: last).utf8.count + 1
        }
        return members
    }

    private static func trimmed(_ member: String) -> String {
        func isBlank(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }
        var rest = member.utf8.drop(while: isBlank)
        while let last = rest.last, isBlank(last) { rest.removeLast() }
        return String(Substring(rest))
    }

    private static func isMember(_ member: String) -> Bool {
        let sides = member.utf8.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
        // (A blank at the value's end has been trimmed away.)
        return sides.count == 2 && isKey(sides[0]) && (1...valueBytes).contains(sides[1].count)
            && sides[1].allSatisfy { $0 >= 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "=") }
    }

    /// `key`, or `tenant@system`.
    private static func isKey(_ key: Substring.UTF8View) -> Bool {
        func isLetter(_ byte: UInt8) -> Bool { (0x61...0x7A).contains(byte) }
        func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }
        func isOfKey(_ byte: UInt8) -> Bool { isLetter(byte) || isDigit(byte) || "_-*/".utf8.contains(byte) }
        let sides = key.split(separator: UInt8(ascii: "@"), maxSplits: 1, omittingEmptySubsequences: false)
        guard sides.allSatisfy({ $0.allSatisfy(isOfKey) }), let first = key.first else { return false }
        guard sides.count == 2 else { return isLetter(first) && key.count <= keyBytes }
        return (isLetter(first) || isDigit(first)) && sides[0].count <= tenantBytes
            && sides[1].count <= systemBytes && (sides[1].first.map(isLetter) ?? false)
    }

    /// As the field says it.
    package var text: String { members.joined(separator: ",") }

    // MARK: Between nodes

    /// Without commas, which part a batch's requests; no member has a tabulator.
    package var carried: String { members.joined(separator: "\t") }

    package init?(carried text: some StringProtocol) { self.init(text, separator: UInt8(ascii: "\t")) }
}
