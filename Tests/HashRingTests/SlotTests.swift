// SPDX-License-Identifier: Apache-2.0

import HashRing
import Testing

struct SlotTests {
    static let known: [(key: String, slot: UInt16)] = [
        ("roof", 2184), ("bed", 4019), ("bathtub", 4324), ("bee", 4603), ("gate", 6051), ("finger", 6823),
        ("gas", 6952),
        ("saddle", 8016), ("mist", 8155), ("flower", 8700), ("shoes", 9235), ("ship", 9381),
    ]

    @Test(arguments: known)
    func slotOfKnownKey(_ key: String, _ slot: UInt16) { #expect(Slot(ofKey: Array(key.utf8)).value == slot) }

    /// RFC 1321's test suite (appendix A.5), as 128-bit numbers mod 10,000.
    @Test(arguments: [
        ("", "d41d8cd98f00b204e9800998ecf8427e"), ("a", "0cc175b9c0f1b6a831c399e269772661"),
        ("abc", "900150983cd24fb0d6963f7d28e17f72"), ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
        ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
    ])
    func slotIsTheDigestModuloTenThousand(_ key: String, _ digest: String) {
        let remainder = digest.reduce(0) { ($0 * 16 + ($1.hexDigitValue ?? 0)) % 10_000 }
        #expect(Int(Slot(ofKey: Array(key.utf8)).value) == remainder)
    }

    @Test(arguments: [(-1, false), (0, true), (9999, true), (10_000, false), (Int.max, false), (Int.min, false)])
    func slotNumbersAreBounded(_ value: Int, _ isSlot: Bool) { #expect((Slot(value) != nil) == isSlot) }

    @Test func allSlotsOnce() {
        #expect(Array(Slot.all).map { Int($0.value) } == Array(0..<10_000))
    }
}
