// SPDX-License-Identifier: Apache-2.0

package import HashRing

/// What a host's memcached says of itself in one small value: the epoch of the host's ring document, which life of this
/// memory it is, and whether it has again what the life before it held. Every batch asks for it, so that nothing is
/// served under an older ring or out of another memory.
package struct HostStamp: Hashable, Sendable, CustomStringConvertible {
    package let epoch: Epoch
    package let generation: Generation
    /// Whether pairs were lost with the memory before this one, and are not all here again.
    package let isRecovering: Bool

    package init(epoch: Epoch, generation: Generation, isRecovering: Bool = false) {
        self.epoch = epoch
        self.generation = generation
        self.isRecovering = isRecovering
    }

    /// As it is stored: sixteen hexadecimal digits of the generation, a blank, the epoch in decimal digits, and `r`
    /// while the memory is recovering.
    package var bytes: [UInt8] { Array(description.utf8) }

    /// Nil where these bytes are no stamp. Blanks at the end are padding.
    package init?(bytes: some Collection<UInt8>) {
        // Without a `String`, for every batch brings a stamp.
        var rest = bytes.makeIterator()
        var generation: UInt64 = 0
        for _ in 0..<16 {
            guard let byte = rest.next(), let digit = HostStamp.hexValue(byte) else { return nil }
            generation = generation << 4 | UInt64(digit)
        }
        guard rest.next() == UInt8(ascii: " ") else { return nil }
        var epoch: UInt64 = 0
        var digits = 0
        var next = rest.next()
        while let byte = next, (0x30...0x39).contains(byte) {
            let (tenfold, isTooLarge) = epoch.multipliedReportingOverflow(by: 10)
            let (sum, isStillTooLarge) = tenfold.addingReportingOverflow(UInt64(byte - 0x30))
            guard !isTooLarge, !isStillTooLarge else { return nil }
            epoch = sum
            digits += 1
            next = rest.next()
        }
        guard digits > 0 else { return nil }
        let isRecovering = next == UInt8(ascii: "r")
        if isRecovering { next = rest.next() }
        while let byte = next {
            guard byte == UInt8(ascii: " ") else { return nil }
            next = rest.next()
        }
        self.init(epoch: Epoch(epoch), generation: Generation(generation), isRecovering: isRecovering)
    }

    private static func hexValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x37
        case 0x61...0x66: byte - 0x57
        default: nil
        }
    }

    package var description: String { "\(generation) \(epoch)\(isRecovering ? "r" : "")" }
}
