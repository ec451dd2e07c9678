// SPDX-License-Identifier: Apache-2.0

/// How long memcached keeps a pair that is bound to go: longer than anybody may read it, so that an older copy of it
/// that is still under way (from a ring change, say) finds something newer.
package enum Retention {
    /// memcached takes a larger number for a time since 1970.
    private static let longestRelativeSeconds: UInt64 = 30 * 86_400

    /// - Parameters:
    ///   - isHint: whether it is kept for another node: then for as long as it may be handed on, for that node may hold
    ///     an older one that never expires.
    ///   - now: the wall clock, in milliseconds since 1970.
    /// - Returns: as memcached takes it: seconds from now, or since 1970 where they are many; 0 for ever.
    package static func exptime(of envelope: Envelope, isHint: Bool = false, atMilliseconds now: UInt64) -> UInt32 {
        guard var seconds = seconds(of: envelope, now) else { return 0 }
        if isHint { seconds = max(seconds, UInt64(Limits.hintSeconds)) }
        if seconds <= longestRelativeSeconds { return UInt32(seconds) }
        // (Beyond 2038 memcached can't count; the pair is missing when it has expired all the same.)
        return UInt32(exactly: Int32(exactly: now / 1000 + seconds) ?? 0) ?? 0
    }

    /// Whether memcached drops it soon, or has already at another replica: an expired pair, or a tombstone of old.
    package static func isBoundToGo(_ envelope: Envelope, atMilliseconds now: UInt64) -> Bool {
        guard envelope.isTombstone else { return envelope.isGone(atMilliseconds: now) }
        return keptUntilMilliseconds(envelope) <= now
    }

    /// A day after the deletion: by its version, or, where that follows an older write's, by what it says itself.
    private static func keptUntilMilliseconds(_ tombstone: Envelope) -> UInt64 {
        tombstone.expiryMilliseconds
            ?? tombstone.version.microseconds / 1000 + UInt64(Limits.tombstoneSeconds) * 1000
    }

    /// Whether a hint is so old that what deleted its pair since may be forgotten.
    package static func isTooOldToHandOn(_ envelope: Envelope, atMilliseconds now: UInt64) -> Bool {
        envelope.version.microseconds / 1000 + UInt64(Limits.hintSeconds) * 1000 <= now
    }

    private static func seconds(of envelope: Envelope, _ now: UInt64) -> UInt64? {
        if envelope.isTombstone {
            let left = Int64(clamping: keptUntilMilliseconds(envelope) / 1000) - Int64(clamping: now / 1000)
            return UInt64(min(max(left, Int64(Limits.lateTombstoneSeconds)), Int64(Limits.tombstoneSeconds)))
        }
        guard let expiry = envelope.expiryMilliseconds else { return nil }
        let left = expiry > now ? (expiry - now + 999) / 1000 : 0
        return min(left, UInt64(Limits.timeToLiveSeconds)) + UInt64(Limits.expiredSeconds)
    }
}
