// SPDX-License-Identifier: Apache-2.0

import KeyValue
import NIOCore
import Testing

struct RetentionTests {
    private static let now: UInt64 = 1_800_000_000_000
    private let key = Key("k")!

    private func exptime(expiringIn milliseconds: Int64) -> UInt32 {
        let expiry = UInt64(Int64(RetentionTests.now) + milliseconds)
        let pair = Envelope(key: key, storedKey: StoredKey(key), value: ByteBuffer(), expiryMilliseconds: expiry)
        return Retention.exptime(of: pair, atMilliseconds: RetentionTests.now)
    }

    private func exptime(deletedBefore seconds: Int64) -> UInt32 {
        let time = UInt64(Int64(RetentionTests.now / 1000) - seconds) * 1_000_000 << 12
        let tombstone = Envelope(
            key: key, storedKey: StoredKey(key), value: ByteBuffer(), version: Version(time: time, writer: 1),
            isTombstone: true)
        return Retention.exptime(of: tombstone, atMilliseconds: RetentionTests.now)
    }

    /// An hour before the first tombstone that it might undo is forgotten.
    @Test func hintsAreHandedOnForLessThanADay() {
        for (seconds, isTooOld) in [(0, false), (82_799, false), (82_800, true), (86_400, true)] as [(UInt64, Bool)] {
            let time = (RetentionTests.now - seconds * 1000) * 1000 << 12
            let pair = Envelope(
                key: key, storedKey: StoredKey(key), value: ByteBuffer(), version: Version(time: time, writer: 1))
            #expect(Retention.isTooOldToHandOn(pair, atMilliseconds: RetentionTests.now) == isTooOld)
        }
    }

    /// The node that was away may hold an older one that never expires.
    @Test func hintsOutliveTheExpiryOfTheirPairs() {
        let expiry = RetentionTests.now + 10_000
        let pair = Envelope(key: key, storedKey: StoredKey(key), value: ByteBuffer(), expiryMilliseconds: expiry)
        func exptime(at now: UInt64) -> UInt32 { Retention.exptime(of: pair, isHint: true, atMilliseconds: now) }
        #expect(exptime(at: RetentionTests.now) == 82_800 && exptime(at: expiry + 1_000_000) == 82_800)
        #expect(exptime(at: expiry - 100_000_000) == 100_600)
        let lasting = Envelope(key: key, storedKey: StoredKey(key), value: ByteBuffer())
        #expect(Retention.exptime(of: lasting, isHint: true, atMilliseconds: RetentionTests.now) == 0)
    }

    @Test func pairsStayForGood() {
        let pair = Envelope(key: key, storedKey: StoredKey(key), value: ByteBuffer())
        #expect(Retention.exptime(of: pair, atMilliseconds: RetentionTests.now) == 0)
        #expect(!pair.isGone(atMilliseconds: .max))
    }

    @Test func expiringPairsOutliveTheirExpiry() {
        #expect(exptime(expiringIn: 10_000) == 610)
        #expect(exptime(expiringIn: 1) == 601)
        #expect(exptime(expiringIn: 0) == 600)
        #expect(exptime(expiringIn: -1_000_000) == 600)
        // Many seconds are counted from 1970, or they would be taken for such a time.
        #expect(exptime(expiringIn: 2_592_000_000) == 1_800_000_000 + 2_592_000 + 600)
        #expect(exptime(expiringIn: 2_592_000_000 - 600_000) == 2_592_000)
        #expect(exptime(expiringIn: .max / 2) == 1_800_000_000 + 315_360_000 + 600)
    }

    @Test func tombstonesStayForADay() {
        #expect(exptime(deletedBefore: 0) == 86_400)
        #expect(exptime(deletedBefore: 1000) == 85_400)
        #expect(exptime(deletedBefore: 1_000_000) == 3600, "one that arrives late still has to hold off older copies")
        #expect(exptime(deletedBefore: -5000) == 86_400, "by a clock that is ahead")
    }

    /// Or replicas would give back to each other for ever what one of them has dropped.
    @Test func whatIsBoundToGo() {
        let now = RetentionTests.now
        func tombstone(secondsAgo: UInt64) -> Envelope {
            Envelope(
                key: key, storedKey: StoredKey(key), value: ByteBuffer(),
                version: Version(time: (now / 1000 - secondsAgo) * 1_000_000 << 12, writer: 1), isTombstone: true)
        }
        #expect(!Retention.isBoundToGo(tombstone(secondsAgo: 86_399), atMilliseconds: now))
        #expect(Retention.isBoundToGo(tombstone(secondsAgo: 86_400), atMilliseconds: now))
        let pair = Envelope(key: key, storedKey: StoredKey(key), value: ByteBuffer(), expiryMilliseconds: now)
        #expect(Retention.isBoundToGo(pair, atMilliseconds: now))
        #expect(!Retention.isBoundToGo(pair, atMilliseconds: now - 1))
        let lasting = Envelope(key: key, storedKey: StoredKey(key), value: ByteBuffer())
        #expect(!Retention.isBoundToGo(lasting, atMilliseconds: .max))
    }

    /// A conditional delete's version is right behind that of the pair, which may be years old.
    @Test func aTombstoneMaySayHowLongItIsNeeded() {
        let now = RetentionTests.now
        let old = Version(time: 1_000_000 << 12, writer: 1)
        func tombstone(keptFor seconds: UInt64) -> Envelope {
            Envelope(
                key: key, storedKey: StoredKey(key), value: ByteBuffer(), version: old, isTombstone: true,
                expiryMilliseconds: now + seconds * 1000)
        }
        #expect(Retention.exptime(of: tombstone(keptFor: 86_400), atMilliseconds: now) == 86_400)
        #expect(Retention.exptime(of: tombstone(keptFor: 10_000), atMilliseconds: now) == 10_000)
        #expect(Retention.exptime(of: tombstone(keptFor: 0), atMilliseconds: now) == 3600)
        #expect(Retention.exptime(of: tombstone(keptFor: 900_000), atMilliseconds: now) == 86_400)
        #expect(!Retention.isBoundToGo(tombstone(keptFor: 1), atMilliseconds: now))
        #expect(Retention.isBoundToGo(tombstone(keptFor: 0), atMilliseconds: now))
        #expect(tombstone(keptFor: 1).isGone(atMilliseconds: now))
    }

    @Test func goneFromItsExpiryOn() {
        let pair = Envelope(key: key, storedKey: StoredKey(key), value: ByteBuffer(), expiryMilliseconds: 1000)
        #expect(!pair.isGone(atMilliseconds: 999) && pair.isGone(atMilliseconds: 1000))
    }
}
