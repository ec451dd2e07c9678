// SPDX-License-Identifier: Apache-2.0

/// Why etcd did not do what it was asked.
package enum EtcdError: Error, Sendable, Hashable, CustomStringConvertible {
    /// No member has answered in time, or none could.
    /// - Parameter mayBeDone: whether some member may have got the request all the same.
    case unreachable(reason: String, mayBeDone: Bool)
    /// It was understood and not done.
    case refused(String)
    /// What came is no answer of etcd's.
    case unreadable(String)

    package var mayBeDone: Bool {
        switch self {
        case .unreachable(_, let mayBeDone): mayBeDone
        case .refused: false
        case .unreadable: true
        }
    }

    package var description: String {
        switch self {
        case .unreachable(let reason, _): reason
        case .refused(let text): "it refuses: \(text)"
        case .unreadable(let text): "an answer that can't be read: \(text)"
        }
    }
}
