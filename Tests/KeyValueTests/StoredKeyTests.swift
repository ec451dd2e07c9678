// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import Testing

struct StoredKeyTests {
    @Test(arguments: [
        ("roof", "d2184:roof"), ("a b", "%20"), ("100%", "%25"), ("a\r\nset x 0 0 1\r\ny", "%0D%0A"), ("é", "%C3%A9"),
        ("\0", "%00"), ("\u{7F}", "%7F"), ("~", ":~"), ("!", ":!"), ("d0000:a", ":d0000:a"),
    ])
    func escapes(_ text: String, _ part: String) throws {
        let stored = StoredKey(try #require(Key(text)))
        #expect(String(decoding: stored.bytes, as: UTF8.self).contains(part))
        #expect(stored.clientKey?.bytes == Array(text.utf8))
    }

    @Test(arguments: 0..<40)
    func anyBytesComeBack(seed: UInt64) throws {
        var random = SeededBytes(seed)
        for _ in 0..<200 {
            let count = Int.random(in: 1...(seed % 4 == 0 ? 4096 : 300), using: &random)
            // Some keys mostly need escapes, some never do.
            let bytes = random.bytes(count).map { seed % 3 == 0 ? 33 + $0 % 94 : $0 }
            let key = try #require(Key(bytes))
            let stored = StoredKey(key)
            #expect(stored.bytes.count <= 250 && stored.bytes.allSatisfy { (33...126).contains($0) })
            #expect(stored.slot == key.slot && stored.slot == Slot(ofKey: bytes))
            #expect(StoredKey(stored: stored.bytes) == stored)
            let plain = 6 + bytes.reduce(0) { $0 + ((33...126).contains($1) && $1 != UInt8(ascii: "%") ? 1 : 3) }
            #expect(stored.isDigest == (plain > 240))
            #expect(stored.clientKey == (stored.isDigest ? nil : key))
        }
    }

    @Test func lengthsAroundTheDigest() throws {
        for (count, isDigest) in [(233, false), (234, false), (235, true), (4096, true)] {
            let stored = StoredKey(try #require(Key([UInt8](repeating: 97, count: count))))
            #expect(stored.isDigest == isDigest, "\(count)")
            #expect(stored.bytes.count == (isDigest ? 72 : count + 6))
        }
    }

    @Test func digestsDiffer() throws {
        let keys = try (0..<200).map { try #require(Key([UInt8](repeating: 97, count: 300) + [UInt8($0)])) }
        #expect(Set(keys.map { StoredKey($0).bytes.dropFirst(6) }).count == 200)
    }

    /// No plain key looks like a digest, whatever it is.
    @Test func aKeyThatImitatesADigestIsNone() throws {
        let digest = StoredKey(try #require(Key([UInt8](repeating: 1, count: 500))))
        let imitation = StoredKey(try #require(Key(Array(digest.bytes.dropFirst(6)))))
        #expect(digest.isDigest && !imitation.isDigest)
    }

    @Test(arguments: [
        "", "d0000:", "x0000:a", "d000:ab", "d00000:a", "d10000:", "dabcd:a", "d0000;a", "d0000:a b", "d0000:\u{7F}",
        "d0000:é",
    ])
    func noStoredKey(_ text: String) { #expect(StoredKey(stored: Array(text.utf8)) == nil) }

    /// A hint's key says everything that the pair's does, and none is taken for the other.
    @Test(arguments: 0..<10)
    func hintsHaveKeysOfTheirOwn(seed: UInt64) throws {
        var random = SeededBytes(seed)
        for count in [1, 20, 234, 235, 4096] {
            let pair = StoredKey(try #require(Key(random.bytes(count))))
            let hint = pair.hint
            #expect(hint != pair && hint.isHint && !pair.isHint && hint.bytes.first == UInt8(ascii: "h"))
            #expect(hint.pair == pair && hint.hint == hint && pair.pair == pair)
            #expect(hint.slot == pair.slot && hint.isDigest == pair.isDigest && hint.clientKey == pair.clientKey)
            #expect(StoredKey(stored: hint.bytes) == hint)
        }
    }

    @Test func storedKeysAreBounded() {
        let prefix = Array("d0001:".utf8)
        #expect(StoredKey(stored: prefix + [UInt8](repeating: 97, count: 244)) != nil)
        #expect(StoredKey(stored: prefix + [UInt8](repeating: 97, count: 245)) == nil)
    }

    @Test(arguments: ["d0000:%", "d0000:%4", "d0000:%GG", "d0000:%0a", "d0000:a%"])
    func badEscapesAreNoClientKey(_ text: String) throws {
        #expect(try #require(StoredKey(stored: Array(text.utf8))).clientKey == nil)
    }

    @Test(arguments: [(0, false), (1, true), (4096, true), (4097, false)])
    func clientKeysAreBounded(_ count: Int, _ isKey: Bool) {
        #expect((Key([UInt8](repeating: 0, count: count)) != nil) == isKey)
    }
}
