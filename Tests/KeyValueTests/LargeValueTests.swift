// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import NIOCore
import Testing

@Suite("Large values: manifests and chunks' keys")
struct LargeValueTests {
    private static let key = Key(Array("user/17".utf8))!

    @Test("a manifest is read as it was written, with all that stands beside it")
    func manifest() throws {
        for name in ["short", String(repeating: "long", count: 100)] {
            let key = try #require(Key(Array(name.utf8)))
            let large = LargeValue(upload: .random(), length: 3_000_000, chunkBytes: 262_144)
            var envelope = Envelope(
                key: key, storedKey: StoredKey(key), manifest: large, contentType: "image/png",
                expiryMilliseconds: 99, clientFlags: 7)
            envelope.stamp(Version(time: 5, writer: 6))
            let again = try #require(Envelope(envelope.buffer))
            #expect(again.isManifest && again.largeValue == large && again.valueLength == 3_000_000)
            #expect((again.contentType, again.expiryMilliseconds, again.clientFlags) == ("image/png", 99, 7))
            #expect(again.clientKey(under: StoredKey(key)) == key && again.version == Version(time: 5, writer: 6))
            let head = try #require(Envelope(again.head.buffer))
            #expect(!head.isManifest && head.valueLength == 0 && head.clientKey(under: StoredKey(key)) == key)
        }
        let plain = Envelope(key: Self.key, storedKey: StoredKey(Self.key), value: ByteBuffer(string: "abc"))
        #expect(!plain.isManifest && plain.largeValue == nil && plain.valueLength == 3)
    }

    @Test("bytes that are cut, changed or too many are no manifest")
    func malformed() throws {
        let bytes = LargeValue(upload: .random(), length: 70_000, chunkBytes: 1000).encoded
        for length in 0..<bytes.readableBytes {
            #expect(LargeValue(try #require(bytes.getSlice(at: 0, length: length))) == nil)
        }
        var longer = bytes
        longer.writeInteger(UInt8(0))
        #expect(LargeValue(longer) == nil)
        for (length, chunkBytes) in [(0, 1000), (Limits.valueBytes + 1, 1000), (5, 0), (Limits.valueBytes, 1)] {
            let impossible = LargeValue(upload: .random(), length: length, chunkBytes: chunkBytes)
            #expect(LargeValue(impossible.encoded) == nil, "\(length) bytes in chunks of \(chunkBytes)")
        }
        var tombstone = Envelope(
            key: Self.key, storedKey: StoredKey(Self.key), manifest: try #require(LargeValue(bytes))
        )
        .buffer
        tombstone.setInteger(UInt8(33), at: tombstone.readerIndex + 1)
        #expect(Envelope(tombstone) == nil, "a tombstone that is a manifest")
        var plain = Envelope(key: Self.key, storedKey: StoredKey(Self.key), value: ByteBuffer(string: "abc")).buffer
        plain.setInteger(UInt8(32), at: plain.readerIndex + 1)
        #expect(Envelope(plain) == nil, "a manifest that says nothing of chunks")
    }

    @Test("chunks cover a value without a gap, and those of a range hold all of it")
    func coverage() {
        for _ in 0..<2000 {
            let length = Int.random(in: 1...5000)
            let large = LargeValue(upload: .random(), length: length, chunkBytes: Int.random(in: 1...1000))
            var end = 0
            for number in 1...large.chunkCount {
                let bytes = large.bytes(ofChunk: number)
                #expect(bytes.lowerBound == end && !bytes.isEmpty)
                end = bytes.upperBound
            }
            #expect(end == length)
            let first = Int.random(in: 0..<length)
            let range = first..<Int.random(in: first + 1...length)
            let chunks = large.chunks(of: range)
            #expect(large.bytes(ofChunk: chunks.lowerBound).contains(range.lowerBound))
            #expect(large.bytes(ofChunk: chunks.upperBound).contains(range.upperBound - 1))
        }
    }

    @Test("a chunk's key tells its upload, its number and its slot, and no client's key looks like one")
    func keys() throws {
        let upload = UploadID.random()
        for number in [0, 1, 9, 10, 256, 999_999] {
            let key = StoredKey(chunk: number, of: upload, in: Self.key.slot)
            let again = try #require(StoredKey(stored: key.bytes))
            #expect(again == key && again.isChunk && !again.isDigest && again.slot == Self.key.slot)
            #expect(again.clientKey == nil && again.hint.pair == key)
            let chunk = try #require(again.chunk)
            #expect(chunk == (upload, number))
            let envelope = Envelope(key: Self.key, storedKey: key, value: ByteBuffer(string: "x"))
            #expect(envelope.keyInside.map { Array($0.readableBytesView) } == Self.key.bytes)
            #expect(envelope.clientKey(under: key) == nil)
        }
        for text in ["%~", "~", "%7E~", "%%~", String(repeating: "%~", count: 200)] {
            let key = try #require(Key(Array(text.utf8)))
            #expect(!StoredKey(key).isChunk && StoredKey(key).chunk == nil, "\(text)")
        }
        let name = String(decoding: StoredKey(chunk: 1, of: upload, in: Self.key.slot).bytes, as: UTF8.self)
        for other in [
            name + "x", name + " ", String(name.dropLast(2)), name.replacing(".1", with: ".01"),
            name.lowercased() + ".",
        ] {
            #expect(StoredKey(stored: Array(other.utf8))?.chunk == nil, "\(other)")
        }
    }
}
