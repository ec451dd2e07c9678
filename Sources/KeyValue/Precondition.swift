// SPDX-License-Identifier: Apache-2.0

/// What a request wants to be so of the pair before anything is done (RFC 9110, section 13): `If-Match` and
/// `If-None-Match`, both where both are given. A pair that is deleted or has expired is none.
package struct Precondition: Hashable, Sendable {
    package enum Tags: Hashable, Sendable {
        /// `*`: whatever pair there is.
        case any
        /// The pair in one of these versions. Tags that are none of ours are no versions, and match nothing.
        case versions([Version])

        fileprivate func match(_ version: Version?) -> Bool {
            switch self {
            case .any: version != nil
            case .versions(let versions): version.map(versions.contains) ?? false
            }
        }
    }

    package var ifMatch: Tags?
    package var ifNoneMatch: Tags?

    package init(ifMatch: Tags? = nil, ifNoneMatch: Tags? = nil) {
        self.ifMatch = ifMatch
        self.ifNoneMatch = ifNoneMatch
    }

    package var isEmpty: Bool { ifMatch == nil && ifNoneMatch == nil }

    package enum Verdict: Hashable, Sendable {
        case met
        case ifMatchFailed
        case ifNoneMatchFailed
    }

    /// - Parameter now: the wall clock, in milliseconds since 1970.
    package func verdict(on held: Envelope?, atMilliseconds now: UInt64) -> Verdict {
        if isEmpty { return .met }
        let version = held.flatMap { $0.isGone(atMilliseconds: now) ? nil : $0.version }
        if let ifMatch, !ifMatch.match(version) { return .ifMatchFailed }
        if let ifNoneMatch, ifNoneMatch.match(version) { return .ifNoneMatchFailed }
        return .met
    }
}
