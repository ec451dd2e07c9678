// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue
package import NIOCore
package import RequestTracing

/// One operation on its way to one replica, with who waits for it.
package struct Leg {
    package let operation: Operation
    /// Of the ring document by which the replica was chosen.
    package let epoch: Epoch
    /// When whoever asked has to have an answer.
    package let deadline: NIODeadline
    /// How often a read may be asked again where its answer did not come.
    let triesLeft: Int
    /// For which request; nil where nobody would look for it.
    package let trace: RequestTrace?
    /// Called once, on the event loop.
    package let completion: (Outcome) -> Void

    package init(
        _ operation: Operation, epoch: Epoch, deadline: NIODeadline, triesLeft: Int = Limits.readTries,
        for trace: RequestTrace? = nil, completion: @escaping (Outcome) -> Void
    ) {
        self.operation = operation
        self.epoch = epoch
        self.deadline = deadline
        self.triesLeft = triesLeft
        self.trace = trace
        self.completion = completion
    }

    /// The same with one try less.
    var again: Leg {
        Leg(
            operation, epoch: epoch, deadline: deadline, triesLeft: triesLeft - 1, for: trace, completion: completion)
    }

    /// Answers for a leg that was given up: a read is as if it had never been, a write that was sent is anybody's
    /// guess.
    func fail(_ reason: OperationFailure.Reason, wasSent: Bool) {
        completion(.failed(wasSent && operation.isWrite ? .outcomeUnknown(reason) : .notApplied(reason)))
    }
}

/// Who holds pairs: this host's memcached, or another node. Belongs to one event loop.
///
/// What is sent in one tick of the loop travels together.
package protocol Replica: AnyObject {
    /// Hands the leg over; it is on its way at the end of this tick.
    func send(_ leg: Leg)
}
