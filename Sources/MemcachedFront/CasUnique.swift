// SPDX-License-Identifier: Apache-2.0

package import KeyValue

extension Version {
    /// What memcached's clients know a version by: 64 bits, made of the version's 96.
    ///
    /// Two versions of one key never share it where they were made at the same reading of a clock (a chain of
    /// conditional writes, which differ in the writer alone), where one worker's clock made both, or where their times
    /// are less than a fifth of a second apart, whoever made them. For the writer's number is multiplied by the odd
    /// number next to 2^64 over the golden ratio: no multiple of it by less than 2^32 is nearer to a multiple of 2^64
    /// than 2^64 / (√5 · 2^32), which is 2^30 steps of a version's time, 0.26 s. Any other two share it with a chance of
    /// 1 in 2^64.
    package var casUnique: UInt64 { time &+ UInt64(writer) &* 0x9E37_79B9_7F4A_7C15 }
}
