// SPDX-License-Identifier: Apache-2.0

package import KeyValue
package import NIOCore
internal import Synchronization

/// Operations on this host's memcached that travel together.
package struct LaneBatch: Sendable {
    package let operations: [Operation]
    /// What memcached must say of itself; otherwise nothing is done and every outcome is `staleRing`.
    package let expected: HostStamp
    /// No call to memcached is begun after this.
    package let deadline: NIODeadline
    /// It comes from this host's own disk, and need not go there once more.
    package let isFromDisk: Bool
    let hasWrites: Bool
    /// What it holds in memory while it waits, in bytes, roughly.
    let weight: Int

    package init(operations: [Operation], expected: HostStamp, deadline: NIODeadline, isFromDisk: Bool = false) {
        self.operations = operations
        self.expected = expected
        self.deadline = deadline
        self.isFromDisk = isFromDisk
        // (In one pass: to look at an operation is to copy it.)
        var hasWrites = false
        var weight = 0
        for operation in operations {
            hasWrites = hasWrites || operation.isWrite
            weight += operation.weight
        }
        self.hasWrites = hasWrites
        self.weight = weight
    }
}

package struct LaneBatchResult: Sendable {
    /// One for each operation, in their order.
    package let outcomes: [Outcome]
    /// What memcached said of itself; nil where it has no stamp, or did not say.
    package let host: HostStamp?

    /// Whether some were not done, for memcached stands on another stamp.
    package var isStale: Bool {
        outcomes.contains { outcome in
            guard case .failed(.staleRing) = outcome else { return false }
            return true
        }
    }

    /// The same failure for all.
    static func failing(_ batch: LaneBatch, _ failure: OperationFailure, host: HostStamp? = nil) -> LaneBatchResult {
        LaneBatchResult(outcomes: batch.operations.map { _ in .failed(failure) }, host: host)
    }
}

/// A batch on its way; for giving it up.
package final class LaneTicket: Sendable {
    private enum State {
        static let waiting: UInt8 = 0
        static let taken: UInt8 = 1
        static let cancelled: UInt8 = 2
    }

    private let state = Atomic<UInt8>(State.waiting)

    /// A lane begins with the batch. False where it was given up before.
    func take() -> Bool {
        state.compareExchange(expected: State.waiting, desired: State.taken, ordering: .acquiringAndReleasing).exchanged
    }

    /// Gives the batch up; true where no lane had begun with it.
    func cancel() -> Bool {
        state.compareExchange(expected: State.waiting, desired: State.cancelled, ordering: .acquiringAndReleasing)
            .exchanged
    }
}
