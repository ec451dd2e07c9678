// SPDX-License-Identifier: Apache-2.0

/// What became of a request, as far as a caller has to tell it apart: each has an exit status of its own, which is
/// part of kvctl's interface and never changes.
package enum RequestOutcome: Hashable, Sendable {
    case done
    /// Refused, and it would be again.
    case refused
    /// Nothing was changed; trying again may help.
    case unavailable
    /// A write may have been done, or may be yet.
    case unknown
    case notFound
    /// `--if-match` or `--if-none-match` does not hold.
    case conditionFailed

    package var exitStatus: Int32 {
        switch self {
        case .done: 0
        case .refused: 1
        case .unavailable: 2
        case .unknown: 3
        case .notFound: 4
        case .conditionFailed: 5
        }
    }

    /// - Parameters:
    ///   - outcome: the answer's `X-KV-Outcome`, which each error of a node has, and of its balancer. One without it
    ///     comes from somebody who knows no better: what that one does not have says nothing of the store.
    ///   - changes: whether the request was to change something.
    package init(status: Int, outcome: String?, changes: Bool) {
        switch status {
        case 200..<300: self = .done
        case 404 where outcome != nil: self = .notFound
        case 412 where outcome != nil: self = .conditionFailed
        case 429: self = .unavailable
        // (A node sends nobody elsewhere, so what is redirected reached no node.)
        case 300..<500: self = .refused
        default:
            if changes, outcome != "not-applied" {
                self = .unknown
            } else {
                self = status == 503 || status == 502 || status == 504 ? .unavailable : .refused
            }
        }
    }
}
