// SPDX-License-Identifier: Apache-2.0

/// What can go wrong with one call to memcached. After any of them but `outOfMemory` and `tooLarge` the connection is
/// dropped, so that a late answer is never taken for the next one's.
package enum MemcachedError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Nobody answers there, or the connection broke.
    case unavailable(String)
    /// No answer in time.
    case timedOut
    /// No room, and it evicts nothing. The old value is still there.
    case outOfMemory
    /// Larger than memcached's item limit.
    case tooLarge
    /// An answer that the protocol does not allow here.
    case protocolViolation(String)
    /// It runs without `-M`, so that it would throw pairs away when it is full.
    case evicts

    package var description: String {
        switch self {
        case .unavailable(let reason): "memcached can't be reached: \(reason)"
        case .timedOut: "memcached did not answer in time"
        case .outOfMemory: "memcached has no room"
        case .tooLarge: "larger than memcached's item limit"
        case .protocolViolation(let what): "memcached answered what nobody asked for: \(what)"
        case .evicts: "memcached evicts pairs when it is full: start it with -M (see deploy/run-memcached.sh)"
        }
    }
}
