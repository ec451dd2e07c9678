// SPDX-License-Identifier: Apache-2.0

package import KeyValue

extension Version {
    /// What memcached's clients know a version by: 64 bits, made of the version's 96.
    ///
    /// Two versions of one key never share it where they were made at the same reading of a clock (a chain of
    /// conditional writes, which differ in the writer alone), where they have the same writer, or where their times are
    /// less than half a second apart, whoever made them. Any other two share it with a chance of 1 in 2^64.
    ///
    /// For the writer's number is multiplied by an odd number near 2^64 over the golden ratio, chosen so that none of
    /// its first 2^32 multiples is within 2^31 of a multiple of 2^64 (a unit test proves it); 2^31 steps of a version's
    /// time are 0.52 s.
    package var casUnique: UInt64 { time &+ UInt64(writer) &* Version.casFactor }

    package static let casFactor: UInt64 = 0x9E37_79B9_7F49_036F
}
