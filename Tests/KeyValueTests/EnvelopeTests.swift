// SPDX-License-Identifier: Apache-2.0

import KeyValue
import NIOCore
import Testing

struct EnvelopeTests {
    /// Any key, value, version and content type.
    static func random(_ random: inout SeededBytes, largest: Int = 400) -> (key: Key, envelope: Envelope)? {
        guard let key = Key(random.bytes(Int.random(in: 1...300, using: &random))) else { return nil }
        let version = version(&random)
        let type =
            Bool.random(using: &random) ? String(repeating: "t", count: Int.random(in: 0...255, using: &random)) : nil
        let envelope = Envelope(
            key: key, storedKey: StoredKey(key), value: random.buffer(Int.random(in: 0...largest, using: &random)),
            version: version, isTombstone: Int.random(in: 0..<5, using: &random) == 0, contentType: type,
            expiryMilliseconds: Bool.random(using: &random) ? random.next() : nil,
            clientFlags: Bool.random(using: &random) ? UInt32(truncatingIfNeeded: random.next()) : 0)
        return (key, envelope)
    }

    static func version(_ random: inout SeededBytes) -> Version {
        Version(time: random.next(), writer: UInt32(truncatingIfNeeded: random.next()))
    }

    @Test(arguments: 0..<20)
    func roundTrip(seed: UInt64) throws {
        var random = SeededBytes(seed)
        for _ in 0..<100 {
            let key = try #require(Key(random.bytes(Int.random(in: 1...400, using: &random))))
            let value = random.buffer(Int.random(in: 0...2000, using: &random))
            let version = Version(time: random.next(), writer: UInt32(truncatingIfNeeded: random.next()))
            let isTombstone = Bool.random(using: &random)
            let type = Bool.random(using: &random) ? "text/plain; charset=utf-8" : nil
            let expiry: UInt64? = Bool.random(using: &random) ? random.next() : nil
            let flags = Bool.random(using: &random) ? UInt32(truncatingIfNeeded: random.next()) : 0
            let stored = StoredKey(key)
            let envelope = Envelope(
                key: key, storedKey: stored, value: value, version: version, isTombstone: isTombstone,
                contentType: type, expiryMilliseconds: expiry, clientFlags: flags)
            // Read from the middle of a larger buffer, as it comes from the network.
            var larger = ByteBuffer(bytes: [1, 2, 3])
            larger.writeImmutableBuffer(envelope.buffer)
            larger.moveReaderIndex(forwardBy: 3)
            let again = try #require(Envelope(larger))
            #expect(again.version == version && again.isTombstone == isTombstone && again.contentType == type)
            #expect(again.expiryMilliseconds == expiry)
            #expect(again.clientFlags == (isTombstone ? 0 : flags))
            #expect(again.value == (isTombstone ? ByteBuffer() : value))
            #expect(again.keyInside.map { Array($0.readableBytesView) } == (stored.isDigest ? key.bytes : nil))
            var stamped = again
            let newer = Version(time: random.next(), writer: 7)
            stamped.stamp(newer)
            #expect(stamped.version == newer && stamped.value == again.value && stamped.contentType == type)
            #expect(stamped.expiryMilliseconds == again.expiryMilliseconds)
            #expect(stamped.clientFlags == again.clientFlags)
            #expect(again.version == version)
        }
    }

    /// Whatever bytes come, they are an envelope that can be read, or none.
    @Test(arguments: 0..<20)
    func garbageIsHarmless(seed: UInt64) throws {
        var random = SeededBytes(seed)
        for round in 0..<3000 {
            var buffer: ByteBuffer
            if round % 2 == 0 {
                buffer = random.buffer(Int.random(in: 0...60, using: &random))
                // The right first bytes, so that the rest is looked at.
                if buffer.readableBytes > 1 { buffer.setBytes([1, UInt8(round % 32)], at: 0) }
            } else {
                buffer = try #require(EnvelopeTests.random(&random, largest: 20)).envelope.buffer
                buffer.setInteger(
                    UInt8.random(in: .min ... .max, using: &random),
                    at: Int.random(in: 0..<buffer.writerIndex, using: &random))
                buffer =
                    buffer.getSlice(at: 0, length: Int.random(in: 0...buffer.writerIndex, using: &random)) ?? buffer
            }
            guard let envelope = Envelope(buffer) else { continue }
            let parts = [
                envelope.value.readableBytes, envelope.keyInside?.readableBytes ?? 0,
                envelope.contentType?.utf8.count ?? 0,
            ]
            #expect(parts.reduce(0, +) <= 3 * buffer.readableBytes)
            #expect(!envelope.isTombstone || envelope.value.readableBytes == 0)
        }
    }

    @Test func theHeaderIsNeededWhole() throws {
        let key = try #require(Key([UInt8](repeating: 9, count: 300)))
        let envelope = Envelope(
            key: key, storedKey: StoredKey(key), value: ByteBuffer(), contentType: "a/b", expiryMilliseconds: 5,
            clientFlags: 1)
        for count in 0..<envelope.buffer.readableBytes {
            #expect(Envelope(try #require(envelope.buffer.getSlice(at: 0, length: count))) == nil, "\(count)")
        }
    }

    /// A pair without client flags is what it was before there were any, byte for byte: what older nodes and snapshots
    /// hold.
    @Test func noClientFlagsTakeNoBytes() throws {
        let key = try #require(Key("k"))
        let value = ByteBuffer(string: "v")
        let envelope = Envelope(
            key: key, storedKey: StoredKey(key), value: value, version: Version(time: 1, writer: 2), clientFlags: 0)
        let bytes: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, UInt8(ascii: "v")]
        #expect(Array(envelope.buffer.readableBytesView) == bytes)
        let old = try #require(Envelope(ByteBuffer(bytes: bytes)))
        #expect(old.clientFlags == 0 && old.value == value)
        let flagged = Envelope(key: key, storedKey: StoredKey(key), value: value, clientFlags: .max)
        #expect(flagged.buffer.readableBytes == bytes.count + Envelope.clientFlagsBytes)
    }

    @Test func overlongContentTypesAreLeftOut() throws {
        let key = try #require(Key("k"))
        let long = String(repeating: "x", count: 256)
        #expect(
            Envelope(key: key, storedKey: StoredKey(key), value: ByteBuffer(), contentType: long).contentType == nil)
    }
}
