// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import NIOCore
import Testing

@Suite("What a host lists")
struct HostListingTests {
    @Test("marks are ordered as the keys and slots that they stand behind")
    func order() throws {
        let keys = ["roof", "door", "wall", "a", "b", "\u{0}", "%", "z"].compactMap { Key($0) }.map { StoredKey($0) }
        for key in keys {
            let mark = ListingMark(through: key)
            #expect(.start < mark && mark < .end)
            #expect(mark.firstSlot == key.slot)
            #expect(mark < ListingMark(through: key.slot))
            if let before = Slot(Int(key.slot.value) - 1) { #expect(ListingMark(through: before) < mark) }
            for other in keys {
                #expect((key < other) == (mark < ListingMark(through: other)))
                if key.slot < other.slot { #expect(key < other) }
            }
        }
        #expect(ListingMark.start.firstSlot == Slot(0))
        #expect(ListingMark(through: try #require(Slot(41))).firstSlot == Slot(42))
        #expect(ListingMark(through: try #require(Slot(9999))).firstSlot == nil)
        #expect(ListingMark.end.firstSlot == nil)
    }

    @Test("a mark is read as it was written, and nothing else is one")
    func marks() throws {
        let slot = try #require(Slot(34))
        for mark in [
            .start, .end, ListingMark(through: slot), ListingMark(through: StoredKey(try #require(Key("roof")))),
        ] {
            #expect(ListingMark(mark.bytes) == mark)
        }
        for text in [
            "d", "f", "d0034", "d0034.", "d00a4:x", "h0034:x", "d0034;x", "d9999", "ee",
            String(repeating: "d", count: 300),
        ] {
            #expect(ListingMark(Array(text.utf8)) == nil, "\(text)")
        }
    }

    private func listing(_ random: inout SeededBytes, pairs count: Int, isWhole: Bool) -> HostListing {
        var pairs: [StoredKey: ListedPair] = [:]
        while pairs.count < count {
            guard let (key, envelope) = EnvelopeTests.random(&random, largest: 60),
                envelope.version.time <= Version.latestStoredTime
            else { continue }
            pairs[StoredKey(key)] = ListedPair(
                key: StoredKey(key), record: isWhole ? envelope : envelope.head,
                valueBytes: envelope.value.readableBytes)
        }
        return HostListing(pairs: pairs.values.sorted { $0.key < $1.key }, through: .end)
    }

    @Test("an answer is read as it was written, and cut off or out of order it is none", arguments: [false, true])
    func codec(isWhole: Bool) throws {
        var random = SeededBytes(11)
        for state in [HostListingAnswer.staleRing, .recovering] {
            #expect(HostListingCodec.decode(HostListingCodec.encode(state)) == state)
        }
        let listing = listing(&random, pairs: 40, isWhole: isWhole)
        let bytes = HostListingCodec.encode(.listed(listing))
        #expect(HostListingCodec.decode(bytes) == .listed(listing))
        var ends: Set<Int> = [HostListingCodec.encode(.listed(HostListing(pairs: [], through: .end))).readableBytes]
        for count in 1...40 {
            let part = HostListing(pairs: Array(listing.pairs.prefix(count)), through: .end)
            ends.insert(HostListingCodec.encode(.listed(part)).readableBytes)
        }
        for length in 0..<bytes.readableBytes where !ends.contains(length) {
            let cut = try #require(bytes.getSlice(at: bytes.readerIndex, length: length))
            #expect(HostListingCodec.decode(cut) == nil)
        }
        let reversed = HostListing(pairs: listing.pairs.reversed(), through: .end)
        #expect(HostListingCodec.decode(HostListingCodec.encode(.listed(reversed))) == nil)
        let behind = HostListing(pairs: listing.pairs, through: ListingMark(through: listing.pairs[38].key))
        #expect(HostListingCodec.decode(HostListingCodec.encode(.listed(behind))) == nil)
    }

    @Test("a head is the pair without its value")
    func heads() {
        var random = SeededBytes(12)
        for _ in 0..<200 {
            guard let (_, envelope) = EnvelopeTests.random(&random, largest: 60) else { continue }
            let head = envelope.head
            #expect(Envelope(head.buffer) == head && head.value.readableBytes == 0)
            #expect(
                (head.version, head.contentType, head.expiryMilliseconds, head.keyInside, head.isTombstone)
                    == (
                        envelope.version, envelope.contentType, envelope.expiryMilliseconds, envelope.keyInside,
                        envelope.isTombstone
                    ))
        }
    }

    @Test("a prefix is found in what is stored, byte by byte")
    func prefixes() throws {
        for text in ["roof", "a b%c", "\u{e9}tage", String(repeating: "long", count: 100)] {
            let key = try #require(Key(text))
            for length in 0...min(key.bytes.count, 8) {
                let rest = StoredKey.rest(ofPrefix: Array(key.bytes[..<length]))
                #expect(StoredKey(key).bytes.withUnsafeBytes { StoredKey.mayHavePrefix(rest, $0) })
            }
        }
        let other = StoredKey(try #require(Key("roof"))).bytes
        #expect(!other.withUnsafeBytes { StoredKey.mayHavePrefix(StoredKey.rest(ofPrefix: Array("rob".utf8)), $0) })
    }
}
