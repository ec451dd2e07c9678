// SPDX-License-Identifier: Apache-2.0

/// A place in a trace as W3C's Trace Context (level 1) writes it in `traceparent`, version 00:
/// `00-` 32 hexadecimal digits of the trace `-` 16 of the span `-` 2 of flags, lower case.
package struct TraceParent: Hashable, Sendable, CustomStringConvertible {
    /// The trace's 16 bytes.
    private let high: UInt64
    private let low: UInt64
    /// Whoever sent this.
    package let span: UInt64
    private let flags: UInt8

    /// Length of its text.
    package static let bytes = 55

    private init(high: UInt64, low: UInt64, span: UInt64, flags: UInt8) {
        self.high = high
        self.low = low
        self.span = span
        self.flags = flags
    }

    /// Nil for anything malformed, and for a trace or a span that is all zeros, as the specification has it: the request
    /// is then as one without.
    package init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == TraceParent.bytes else { return nil }
        var rest = bytes[...]
        guard TraceParent.number(&rest, digits: 2) == 0, rest.popFirst() == UInt8(ascii: "-"),
            let high = TraceParent.number(&rest, digits: 16), let low = TraceParent.number(&rest, digits: 16),
            rest.popFirst() == UInt8(ascii: "-"), let span = TraceParent.number(&rest, digits: 16),
            rest.popFirst() == UInt8(ascii: "-"), let flags = TraceParent.number(&rest, digits: 2),
            high | low != 0, span != 0
        else { return nil }
        self.init(high: high, low: low, span: span, flags: UInt8(flags))
    }

    private static func number<Bytes: Collection<UInt8>>(_ rest: inout Bytes, digits: Int) -> UInt64?
    where Bytes.SubSequence == Bytes {
        var number: UInt64 = 0
        for _ in 0..<digits {
            switch rest.popFirst() {
            case let digit? where (0x30...0x39).contains(digit): number = number << 4 | UInt64(digit - 0x30)
            case let digit? where (0x61...0x66).contains(digit): number = number << 4 | UInt64(digit - 0x57)
            default: return nil
            }
        }
        return number
    }

    /// Whether whoever began the trace wants to see its spans.
    package var isSampled: Bool { flags & 1 == 1 }

    /// The same trace as another span of it passes it on. (Of the flags only the one that is known goes along.)
    package func passed(on span: UInt64) -> TraceParent {
        TraceParent(high: high, low: low, span: span, flags: flags & 1)
    }

    /// 32 digits.
    package var trace: String { TraceParent.digits(high, 16) + TraceParent.digits(low, 16) }

    package var description: String {
        "00-\(trace)-\(TraceParent.digits(span, 16))-\(TraceParent.digits(UInt64(flags), 2))"
    }

    /// How a span is written: 16 digits.
    package static func digits(ofSpan span: UInt64) -> String { digits(span, 16) }

    private static func digits(_ number: UInt64, _ count: Int) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: count - digits.utf8.count) + digits
    }
}
