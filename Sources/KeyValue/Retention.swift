// SPDX-License-Identifier: Apache-2.0

/// How long memcached keeps a pair that is bound to go: longer than anybody may read it, so that an older copy of it
/// that is still under way (from a ring change, say) finds something newer.
package enum Retention {
    /// memcached takes a larger number for a time since 1970.
    private static let longestRelativeSeconds: UInt64 = 30 * 86_400

    /// - Parameter now: the wall clock, in milliseconds since 1970.
    /// - Returns: as memcached takes it: seconds from now, or since 1970 where they are many; 0 for ever.
    package static func exptime(of envelope: Envelope, atMilliseconds now: UInt64) -> UInt32 {
        guard let seconds = seconds(of: envelope, now) else { return 0 }
        if seconds <= longestRelativeSeconds { return UInt32(seconds) }
        // (Beyond 2038 memcached can't count; the pair is missing when it has expired all the same.)
        return UInt32(exactly: Int32(exactly: now / 1000 + seconds) ?? 0) ?? 0
    }

    private static func seconds(of envelope: Envelope, _ now: UInt64) -> UInt64? {
        if envelope.isTombstone {
            let left = Int64(clamping: envelope.version.microseconds / 1_000_000) - Int64(clamping: now / 1000)
            return UInt64(
                min(
                    max(left + Int64(Limits.tombstoneSeconds), Int64(Limits.lateTombstoneSeconds)),
                    Int64(Limits.tombstoneSeconds)))
        }
        guard let expiry = envelope.expiryMilliseconds else { return nil }
        let left = expiry > now ? (expiry - now + 999) / 1000 : 0
        return min(left, UInt64(Limits.timeToLiveSeconds)) + UInt64(Limits.expiredSeconds)
    }
}
