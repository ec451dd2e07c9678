// SPDX-License-Identifier: Apache-2.0

import HashRing
import Memcached
import Testing

@Suite("The host's stamp")
struct HostStampTests {
    @Test("is read as it was written, with blanks behind it")
    func roundTrip() {
        for isRecovering in [false, true] {
            for epoch in [0, 1, 10, .max] as [UInt64] {
                let stamp = HostStamp(
                    epoch: Epoch(epoch), generation: Generation(0x0123_4567_89ab_cdef), isRecovering: isRecovering)
                #expect(HostStamp(bytes: stamp.bytes) == stamp)
                #expect(HostStamp(bytes: stamp.bytes + "   ".utf8) == stamp)
                for length in 0..<18 { #expect(HostStamp(bytes: stamp.bytes.prefix(length)) == nil) }
            }
        }
    }

    @Test(
        "other bytes are none",
        arguments: [
            "", "0123456789abcdef", "0123456789abcdef ", "0123456789abcdef r", "0123456789abcdeg 1",
            "0123456789abcdef1 1",
            "0123456789abcdef  1", "0123456789abcdef 1 r", "0123456789abcdef 1rr", "0123456789abcdef 1 1",
            "0123456789abcdef 1x",
            "0123456789abcdef 18446744073709551616", "0123456789abcdef -1",
        ])
    func malformed(text: String) { #expect(HostStamp(bytes: text.utf8) == nil) }
}
