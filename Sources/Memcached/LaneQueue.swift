// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Dispatch
internal import KeyValue
internal import NIOCore
internal import Synchronization

/// Batches that wait for a lane. Bounded.
final class LaneQueue: Sendable {
    /// A batch and who waits for it.
    struct Item: Sendable {
        let batch: LaneBatch
        let ticket: LaneTicket
        let loop: any EventLoop
        let completion: @Sendable (LaneBatchResult) -> Void
    }

    private struct State {
        var items = Deque<Item>()
        var operations = 0
        var bytes = 0
        var isClosed = false
    }

    private let state = Mutex(State())
    private let available = DispatchSemaphore(value: 0)

    /// False where too much waits already, or the queue is closed.
    func push(_ item: Item) -> Bool {
        let weight = item.batch.weight
        let isTaken = state.withLock { state in
            guard !state.isClosed,
                state.items.isEmpty
                    || (state.operations + item.batch.operations.count <= Limits.waitingOperations
                        && state.bytes + weight <= Limits.waitingBytes)
            else { return false }
            state.items.append(item)
            state.operations += item.batch.operations.count
            state.bytes += weight
            return true
        }
        if isTaken { available.signal() }
        return isTaken
    }

    /// Waits for work, then takes the oldest batch and those behind it that ask for the same stamp and fit into `limit`
    /// operations and `Limits.laneBatchBytes` with it. Nil once the queue is closed and empty.
    func next(limit: Int) -> [Item]? {
        while true {
            available.wait()
            let (items, isClosed) = state.withLock { state in (LaneQueue.take(&state, limit: limit), state.isClosed) }
            if !items.isEmpty { return items }
            if isClosed { return nil }
        }
    }

    /// Without those that a lane is at.
    var waitingOperations: Int { state.withLock { $0.operations } }

    func close() {
        state.withLock { $0.isClosed = true }
        available.signal()
    }

    private static func take(_ state: inout State, limit: Int) -> [Item] {
        var items: [Item] = []
        var count = 0
        var bytes = 0
        while let first = state.items.first {
            let size = first.batch.operations.count
            let weight = first.batch.weight
            if let head = items.first,
                count + size > limit || bytes + weight > Limits.laneBatchBytes
                    || head.batch.expected != first.batch.expected
            {
                break
            }
            state.items.removeFirst()
            state.operations -= size
            state.bytes -= weight
            count += size
            bytes += weight
            items.append(first)
        }
        return items
    }
}
