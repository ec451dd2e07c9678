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

    @Test func goneFromItsExpiryOn() {
        let pair = Envelope(key: key, storedKey: StoredKey(key), value: ByteBuffer(), expiryMilliseconds: 1000)
        #expect(!pair.isGone(atMilliseconds: 999) && pair.isGone(atMilliseconds: 1000))
    }
}
