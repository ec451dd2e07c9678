// SPDX-License-Identifier: Apache-2.0

/// A place in a trace as W3C's Trace Context (level 1) writes it in `traceparent`, version 00:
/// `00-` 32 hexadecimal digits of the trace `-` 16 of the span `-` 2 of flags, lower case. A later version begins
/// likewise.
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

    /// Nil for anything malformed, and for a trace or a span that is all zeros, as the specification has it: the
    /// request is then as one without. Of a later version than 00 only that is read which 00 has too, and of its flags
    /// the sampled one; it goes on as 00 (section 4.3).
    package init?(_ bytes: UnsafeRawBufferPointer) {
        let hyphen = UInt8(ascii: "-")
        guard bytes.count >= TraceParent.bytes, bytes[2] == hyphen, bytes[35] == hyphen, bytes[52] == hyphen,
            let version = TraceParent.number(bytes, 0..<2), version != TraceParent.noVersion,
            let high = TraceParent.number(bytes, 3..<19),
            let low = TraceParent.number(bytes, 19..<35), let span = TraceParent.number(bytes, 36..<52),
            let flags = TraceParent.number(bytes, 53..<55), high | low != 0, span != 0
        else { return nil }
        if bytes.count > TraceParent.bytes { guard version > 0, bytes[55] == hyphen else { return nil } }
        self.init(high: high, low: low, span: span, flags: UInt8(version == 0 ? flags : flags & 1))
    }

    /// What the specification keeps from being a version.
    private static let noVersion: UInt64 = 0xFF

    package init?(_ text: some StringProtocol) {
        var text = String(text)
        guard let parent = text.withUTF8({ TraceParent(UnsafeRawBufferPointer($0)) }) else { return nil }
        self = parent
    }

    private static func number(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>) -> UInt64? {
        var number: UInt64 = 0
        for index in range {
            switch bytes[index] {
            case 0x30...0x39: number = number << 4 | UInt64(bytes[index] - 0x30)
            case 0x61...0x66: number = number << 4 | UInt64(bytes[index] - 0x57)
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
        String(unsafeUninitializedCapacity: TraceParent.bytes) { text in
            text.initialize(repeating: UInt8(ascii: "-"))
            TraceParent.write(0, to: text, 0..<2)
            TraceParent.write(high, to: text, 3..<19)
            TraceParent.write(low, to: text, 19..<35)
            TraceParent.write(span, to: text, 36..<52)
            TraceParent.write(UInt64(flags), to: text, 53..<55)
            return TraceParent.bytes
        }
    }

    private static func write(_ number: UInt64, to text: UnsafeMutableBufferPointer<UInt8>, _ range: Range<Int>) {
        var rest = number
        for index in range.reversed() {
            let digit = UInt8(rest & 15)
            text[index] = digit < 10 ? digit + 0x30 : digit + 0x57
            rest >>= 4
        }
    }

    /// How a span is written: 16 digits.
    package static func digits(ofSpan span: UInt64) -> String { digits(span, 16) }

    private static func digits(_ number: UInt64, _ count: Int) -> String {
        String(unsafeUninitializedCapacity: count) { text in
            write(number, to: text, 0..<count)
            return count
        }
    }
}
