// SPDX-License-Identifier: Apache-2.0

internal import KeyValue
package import NIOCore

/// A worker's lanes to its host's memcached: one for reads alone, and one for what writes, which takes two round trips
/// and may carry much. Each makes one turn of all that waits for it, so that a second of its kind would only wake up
/// more often.
package final class LaneGroup: Sendable {
    private let reads = LaneQueue()
    private let writes = LaneQueue()
    /// What memcached said of itself when it was reached last.
    package let settings: MemcachedSettingsCell

    /// Starts the lanes' threads; memcached need not be there yet.
    /// - Parameter log: gets all that is stored; nil: nothing is logged.
    package init(
        _ endpoint: MemcachedEndpoint, clock: WorkerClock, settings: MemcachedSettingsCell,
        log: (any StoredLog)? = nil
    ) {
        self.settings = settings
        Lane(
            queue: reads, endpoint: endpoint, settings: settings, clock: clock, log: nil, metrics: LaneMetrics("read")
        ).start(named: "lane-read")
        Lane(
            queue: writes, endpoint: endpoint, settings: settings, clock: clock, log: log,
            metrics: LaneMetrics("write")
        ).start(named: "lane-write")
    }

    /// Hands a batch to a lane.
    /// - Parameter completion: called once, on the loop, always after this call has returned. A batch that was
    ///   cancelled completes when a lane comes by it.
    package func submit(
        _ batch: LaneBatch, on loop: any EventLoop, completion: @escaping @Sendable (LaneBatchResult) -> Void
    ) -> LaneTicket {
        let ticket = LaneTicket()
        let queue = batch.hasWrites ? writes : reads
        if !queue.push(.init(batch: batch, ticket: ticket, loop: loop, completion: completion)) {
            loop.execute { completion(.failing(batch, .notApplied(.overloaded))) }
        }
        return ticket
    }

    /// Gives a batch up.
    /// - Returns: true where no lane had begun with it, so that it has no effect.
    package func cancel(_ ticket: LaneTicket) -> Bool { ticket.cancel() }

    /// Operations that wait for a lane.
    package var waitingOperations: (reads: Int, writes: Int) { (reads.waitingOperations, writes.waitingOperations) }

    /// Takes nothing more; the threads end when what waits is done.
    package func close() {
        reads.close()
        writes.close()
    }
}
