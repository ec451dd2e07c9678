// SPDX-License-Identifier: Apache-2.0

package import HashRing

/// What a host's memcached says of itself in one small value: the epoch of the host's ring document, and which life of this
/// memory it is. Every batch asks for it, so that nothing is served under an older ring or out of another memory.
package struct HostStamp: Hashable, Sendable, CustomStringConvertible {
    package let epoch: Epoch
    package let generation: Generation

    package init(epoch: Epoch, generation: Generation) {
        self.epoch = epoch
        self.generation = generation
    }

    /// As it is stored: sixteen hexadecimal digits of the generation, a blank, the epoch in decimal digits.
    package var bytes: [UInt8] { Array(description.utf8) }

    /// Nil where these bytes are no stamp. Blanks at the end are padding.
    package init?(bytes: some Collection<UInt8>) {
        let parts = String(decoding: bytes, as: UTF8.self).split(separator: " ")
        guard parts.count == 2, let generation = Generation(hex: parts[0]), let epoch = UInt64(parts[1]) else {
            return nil
        }
        self.init(epoch: Epoch(epoch), generation: generation)
    }

    package var description: String { "\(generation) \(epoch)" }
}
