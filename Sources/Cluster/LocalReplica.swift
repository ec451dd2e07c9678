// SPDX-License-Identifier: Apache-2.0

package import HashRing
internal import KeyValue
package import Memcached
package import NIOCore

/// This host's pairs, through the worker's lanes. Belongs to one event loop.
///
/// It counts what is under way by epoch: a host may say that it stands on a new document only when nothing is left that
/// began under an older one.
package final class LocalReplica: Replica {
    // (What every operation looks at is `unchecked`: none of it is ever lent to a call that might look at it again.)

    private let loop: any EventLoop
    private let lanes: LaneGroup
    /// What memcached must say of itself for a batch to be served.
    @exclusivity(unchecked) private var expected: HostStamp?
    @exclusivity(unchecked) private var waitingReads = Waiting()
    @exclusivity(unchecked) private var waitingWrites = Waiting()
    @exclusivity(unchecked) private var isFlushScheduled = false
    private var underway: [Epoch: Int] = [:]
    /// Called when the last operation of an epoch is done, and when memcached turned out to say something else.
    var onDrained: () -> Void = {}
    var onStale: (HostStamp?) -> Void = { _ in }

    package init(loop: any EventLoop, lanes: LaneGroup) {
        self.loop = loop
        self.lanes = lanes
    }

    /// The oldest epoch that something under way began in; nil where nothing is.
    package var oldestUnderway: Epoch? { underway.keys.min() }

    /// From now on serves under this stamp; nil serves nothing. What was handed over already goes under the old one.
    func expect(_ stamp: HostStamp?) {
        flush()
        expected = stamp
    }

    package func send(_ leg: Leg) {
        if leg.operation.isWrite { waitingWrites.append(leg) } else { waitingReads.append(leg) }
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        loop.assumeIsolated().execute {
            self.isFlushScheduled = false
            self.flush()
        }
    }

    private func flush() {
        // By themselves, so that no read waits for a write.
        submit(waitingReads.takeAll())
        submit(waitingWrites.takeAll())
    }

    private func submit(_ waiting: Waiting) {
        guard !waiting.operations.isEmpty else { return }
        let waiters = waiting.waiters
        submit(waiting.operations, deadline: waiting.deadline) { outcomes, _ in
            precondition(outcomes.count == waiters.count, "each operation has its outcome")
            for index in waiters.indices { waiters[index].completion(outcomes[index]) }
        }
    }

    /// Operations that are to travel together, and who waits for each.
    private struct Waiting {
        private(set) var operations: [Operation] = []
        private(set) var waiters: [Waiter] = []
        /// The earliest.
        private(set) var deadline = NIODeadline.distantFuture

        mutating func append(_ leg: Leg) {
            operations.append(leg.operation)
            waiters.append(Waiter(completion: leg.completion))
            deadline = min(deadline, leg.deadline)
        }

        /// Leaves room for as many more.
        mutating func takeAll() -> Waiting {
            let all = self
            operations.removeAll(keepingCapacity: true)
            waiters.removeAll(keepingCapacity: true)
            deadline = .distantFuture
            return all
        }

        /// (In an array of functions each would be wrapped once more.)
        struct Waiter {
            let completion: (Outcome) -> Void
        }
    }

    /// A batch that stays together: another node's, or one of a hand-off.
    /// - Parameters:
    ///   - isFromDisk: whether it comes from this host's own disk, so that it is not logged.
    ///   - completion: outcomes in the operations' order, and the stamp under which they were done.
    func submit(
        _ operations: [Operation], deadline: NIODeadline, isFromDisk: Bool = false,
        completion: @escaping ([Outcome], HostStamp?) -> Void
    ) {
        guard let expected else {
            completion(operations.map { _ in .failed(.staleRing) }, nil)
            return
        }
        begin(expected.epoch)
        let flight = Flight(operations: operations, completion: completion)
        let bound = NIOLoopBound((replica: self, flight: flight), eventLoop: loop)
        let ticket = lanes.submit(
            LaneBatch(
                operations: operations, expected: expected, deadline: deadline, isFromDisk: isFromDisk), on: loop
        ) { result in
            let (replica, flight) = bound.value
            replica.finish(expected, flight, result)
        }
        flight.timeout = loop.assumeIsolated().scheduleTask(deadline: deadline + .milliseconds(20)) {
            self.giveUp(flight, ticket)
        }
    }

    private func finish(_ expected: HostStamp, _ flight: Flight, _ result: LaneBatchResult) {
        flight.timeout?.cancel()
        if result.isStale { onStale(result.host) }
        flight.complete(result.outcomes, result.host)
        end(expected.epoch)
    }

    /// The lane is late. The batch stays under way until the lane is done with it, but nobody waits for it any longer.
    private func giveUp(_ flight: Flight, _ ticket: LaneTicket) {
        let isUntouched = lanes.cancel(ticket)
        flight.complete(
            flight.operations.map { operation in
                .failed(
                    isUntouched || !operation.isWrite
                        ? .notApplied(.memcachedUnavailable) : .outcomeUnknown(.memcachedUnavailable))
            }, nil)
    }

    /// Counts something that acts on this host's pairs by another way, until `end` is called with the same epoch.
    func begin(_ epoch: Epoch) { underway[epoch, default: 0] += 1 }

    func end(_ epoch: Epoch) {
        guard let count = underway[epoch] else { preconditionFailure("every end has its begin") }
        if count > 1 {
            underway[epoch] = count - 1
        } else {
            underway[epoch] = nil
            if epoch != expected?.epoch { onDrained() }
        }
    }

    /// A batch in the lanes, and who waits for it; nobody, once it was given up.
    private final class Flight {
        let operations: [Operation]
        var completion: (([Outcome], HostStamp?) -> Void)?
        var timeout: Scheduled<Void>?

        init(operations: [Operation], completion: @escaping ([Outcome], HostStamp?) -> Void) {
            self.operations = operations
            self.completion = completion
        }

        func complete(_ outcomes: [Outcome], _ host: HostStamp?) {
            let completion = completion
            self.completion = nil
            completion?(outcomes, host)
        }
    }
}
