// SPDX-License-Identifier: Apache-2.0

import NIOCore

/// Random bytes that a seed fixes.
struct SeededBytes: RandomNumberGenerator {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }

    mutating func next() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state &* 0x2545_F491_4F6C_DD1D
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &self) }
    }

    mutating func buffer(_ count: Int) -> ByteBuffer { ByteBuffer(bytes: bytes(count)) }
}
