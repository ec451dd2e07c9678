// SPDX-License-Identifier: Apache-2.0

import Foundation
import HashRing
import KeyValue
import Testing

struct SlotDigestsTests {
    private static let all = Set(UInt16(0)...9999)
    private let keys = (0..<40).compactMap { Key("key \($0)").map { StoredKey($0) } }

    private func digests(_ pairs: some Sequence<(StoredKey, UInt64)>) -> SlotDigests {
        var digests = SlotDigests()
        for (key, time) in pairs { digests.add(key, Version(time: time, writer: 1)) }
        return digests
    }

    @Test func theOrderDoesNotMatter() {
        let pairs = keys.map { ($0, UInt64(7)) }
        #expect(digests(pairs) == digests(pairs.reversed()))
        #expect(digests(pairs).differing(from: digests(pairs), among: SlotDigestsTests.all).isEmpty)
    }

    /// A key more, a key less, another version, another writer: each shows, in its slot alone.
    @Test func aDifferenceShowsInItsSlot() {
        let pairs = keys.map { ($0, UInt64(7)) }
        let whole = digests(pairs)
        let slot = keys[0].slot.value
        let others = pairs.dropFirst()
        #expect(whole.differing(from: digests(others), among: SlotDigestsTests.all) == [slot])
        #expect(whole.differing(from: digests([(keys[0], UInt64(8))] + others), among: SlotDigestsTests.all) == [slot])
        var otherWriter = digests(others)
        otherWriter.add(keys[0], Version(time: 7, writer: 2))
        #expect(whole.differing(from: otherWriter, among: SlotDigestsTests.all) == [slot])
        #expect(whole.differing(from: digests(others), among: SlotDigestsTests.all.subtracting([slot])).isEmpty)
    }

    @Test func jsonGivesTheSameDigests() throws {
        let whole = digests(keys.map { ($0, UInt64.random(in: 1...(1 << 60))) })
        let json = try JSONEncoder().encode(whole)
        #expect(try JSONDecoder().decode(SlotDigests.self, from: json) == whole)
        for text in ["\"\"", "\"00\"", "\"" + String(repeating: "g", count: 160_000) + "\""] {
            #expect(throws: DecodingError.self) { try JSONDecoder().decode(SlotDigests.self, from: Data(text.utf8)) }
        }
    }
}
