// SPDX-License-Identifier: Apache-2.0

private import Dispatch
private import Glibc
package import HashRing
package import KeyValue
package import Logging
package import Memcached
private import Synchronization

/// A worker's append-only log: the lane copies into it what memcached has stored, and a thread of its own writes that
/// to segments and syncs them (see docs/architecture.md, The log). Where it can't keep up, or its disk fails, it takes
/// nothing, so that nothing is stored that it could not log.
package final class PairLog: StoredLog {
    /// For `/status`.
    package struct Condition: Codable, Hashable, Sendable {
        /// Since 1970; nil before the first one.
        package var lastSyncMilliseconds: UInt64?
        /// Turns of a lane whose writes were refused.
        package var refused = 0
        /// Why writes are refused; nil while they are taken.
        package var error: String?
    }

    private struct State {
        /// Appended, and not yet taken by the thread.
        var pending: [SnapshotBlock] = []
        /// When the oldest of them came.
        var pendingSince: Int64?
        /// When the oldest of those came that the thread has taken, and that no sync has covered.
        var unsyncedSince: Int64?
        /// Bytes of records that room is kept for, and of those that no sync has covered.
        var held = 0
        var generation = Generation(0)
        var epoch = Epoch.none
        var isRecovering = false
        var condition = Condition()
        var isClosed = false

        func isOverdue(at now: Int64) -> Bool {
            (unsyncedSince ?? pendingSince).map { now - $0 > Limits.logOverdueMilliseconds } ?? false
        }
    }

    /// What one turn of the thread has to do.
    private struct Turn {
        var blocks: [SnapshotBlock]
        let isClosed: Bool
        let unsyncedSince: Int64?
        let generation: Generation
        let epoch: Epoch
        let isRecovering: Bool
    }

    private static let overdue = "the disk is too slow: records have waited for over 5 s to be synced"

    private static let noRoom = LogWriter.Failure(
        description: "the disk has no room for more than the next snapshot, which cuts the log off")

    private let node: NodeID
    private let segments: LogSegments
    private let disk: LogDisk
    private let clock: WorkerClock
    private let logger: Logger
    private let bufferBytes: Int
    private let state = Mutex(State())
    private let available = DispatchSemaphore(value: 0)
    private let end: AsyncStream<Void>
    private let endSink: AsyncStream<Void>.Continuation

    /// Starts the thread.
    package init(
        node: NodeID, segments: LogSegments, disk: LogDisk, clock: WorkerClock, logger: Logger,
        bufferBytes: Int = Limits.logBufferBytes
    ) {
        self.node = node
        self.segments = segments
        self.disk = disk
        self.clock = clock
        self.logger = logger
        self.bufferBytes = bufferBytes
        (end, endSink) = AsyncStream.makeStream()
        OwnThread.start(named: "log") { self.run() }
    }

    // MARK: The lane's side

    package func reserve(_ bytes: Int) -> Bool {
        let now = MonotonicClock.milliseconds()
        return state.withLock { state in
            guard state.condition.error == nil, !state.isClosed, !state.isOverdue(at: now),
                bytes <= Limits.snapshotBlockBytes || bytes < Limits.snapshotLargestBlockBytes - 64,
                state.held == 0 || state.held + bytes <= bufferBytes
            else {
                state.condition.refused += 1
                return false
            }
            state.held += bytes
            return true
        }
    }

    package func append(
        _ records: [SnapshotRecord], under stamp: HostStamp, reserved bytes: Int
    ) {
        let now = MonotonicClock.milliseconds()
        let isFirst = state.withLock { state in
            state.held -= bytes
            guard !records.isEmpty else { return false }
            let isFirst = state.pending.isEmpty
            for record in records {
                if state.pending.last?.hasRoom(for: record) != true { state.pending.append(SnapshotBlock()) }
                state.pending[state.pending.count - 1].append(record)
                state.held += record.bytes
            }
            state.generation = stamp.generation
            state.epoch = stamp.epoch
            state.isRecovering = stamp.isRecovering
            if isFirst { state.pendingSince = now }
            return isFirst
        }
        if isFirst { available.signal() }
    }

    // MARK: The others'

    package var condition: Condition {
        let now = MonotonicClock.milliseconds()
        return state.withLock { state in
            var condition = state.condition
            if condition.error == nil, state.isOverdue(at: now) { condition.error = PairLog.overdue }
            return condition
        }
    }

    /// Takes nothing more; returns once all that it has is on disk, the disk fails, or the time is over.
    package func close(within time: Duration) async {
        state.withLock { $0.isClosed = true }
        available.signal()
        await withTaskGroup(of: Void.self) { [end] group in
            group.addTask { for await _ in end {} }
            group.addTask { try? await Task.sleep(for: time) }
            await group.next()
            group.cancelAll()
        }
    }

    // MARK: The thread

    private func run() {
        var writer = LogWriter(segments, disk: disk)
        var retryMilliseconds: Int64?
        var isClosed = false
        while !isClosed {
            wait(until: PairLog.nextTurn(writer, unsyncedSince: unsyncedSince, retry: retryMilliseconds))
            let turn = take()
            isClosed = turn.isClosed
            let now = MonotonicClock.milliseconds()
            if let retry = retryMilliseconds, now < retry, !isClosed {
                writer.keep(turn.blocks)
                continue
            }
            let waiting = writer.unsyncedBytes + turn.blocks.reduce(0) { $0 + $1.sum.bytes }
            do throws(LogWriter.Failure) {
                try work(turn, on: &writer, at: now, isTrial: retryMilliseconds != nil)
                retryMilliseconds = nil
                settle(waiting - writer.unsyncedBytes, isAll: writer.unsyncedBytes == 0)
                if writer.unsyncedBytes == 0 { recover() }
            } catch {
                // (A part may have been synced before it failed.)
                settle(waiting - writer.unsyncedBytes, isAll: writer.unsyncedBytes == 0)
                retryMilliseconds = now + Limits.logRetryMilliseconds
                fail(error)
            }
        }
        endSink.finish()
    }

    /// Waits for the first record that comes, or for the time; and then for those that follow it closely.
    private func wait(until milliseconds: Int64?) {
        if let milliseconds {
            let left = max(milliseconds - MonotonicClock.milliseconds(), 0)
            _ = available.wait(timeout: .now() + .milliseconds(Int(left)))
        } else {
            available.wait()
        }
        if !state.withLock({ $0.isClosed }) { usleep(UInt32(Limits.logWriteMilliseconds) * 1000) }
    }

    private var unsyncedSince: Int64? { state.withLock { $0.unsyncedSince } }

    private static func nextTurn(
        _ writer: borrowing LogWriter, unsyncedSince: Int64?, retry: Int64?
    ) -> Int64? {
        if let retry { return retry }
        let sync = unsyncedSince.map { $0 + Limits.logSyncMilliseconds - Limits.logWriteMilliseconds }
        return [sync, writer.closingMilliseconds].compactMap(\.self).min()
    }

    private func take() -> Turn {
        state.withLock { state in
            let blocks = state.pending
            state.pending = []
            state.unsyncedSince = state.unsyncedSince ?? state.pendingSince
            state.pendingSince = nil
            return Turn(
                blocks: blocks, isClosed: state.isClosed, unsyncedSince: state.unsyncedSince,
                generation: state.generation, epoch: state.epoch, isRecovering: state.isRecovering)
        }
    }

    /// Where the disk has no room left for a snapshot, what waits is brought to disk all the same.
    private func work(
        _ turn: Turn, on writer: inout LogWriter, at now: Int64, isTrial: Bool
    ) throws(LogWriter.Failure) {
        try writer.write(
            turn.blocks,
            SnapshotHeader(node: node, generation: turn.generation, epoch: turn.epoch, clock: clock.reading), at: now,
            isTrial: isTrial && segments.hasRoomForSnapshot)
        // (A memory that is being refilled is in no snapshot before it is whole: it takes what room there is.)
        guard turn.isRecovering || segments.hasRoomForSnapshot else {
            try writer.close()
            throw PairLog.noRoom
        }
        if let since = turn.unsyncedSince,
            now - since >= Limits.logSyncMilliseconds || writer.unsyncedBytes >= Limits.logUnsyncedBytes
        {
            try writer.sync()
        }
        if turn.isClosed || writer.isSegmentFull || writer.closingMilliseconds.map({ $0 <= now }) == true {
            try writer.close()
        }
    }

    /// So many bytes more are safe.
    /// - Parameter isAll: whether nothing waits that the thread has taken.
    private func settle(_ bytes: Int, isAll: Bool) {
        let wall = clock.wallMilliseconds
        state.withLock { state in
            state.held -= bytes
            if bytes > 0 { state.condition.lastSyncMilliseconds = wall }
            if isAll { state.unsyncedSince = nil }
        }
    }

    private func recover() {
        let wasFailing = state.withLock { state in
            defer { state.condition.error = nil }
            return state.condition.error != nil
        }
        if wasFailing { logger.notice("the log can be written again; writes are taken") }
    }

    private func fail(_ failure: LogWriter.Failure) {
        let isNew = state.withLock { state in
            defer { state.condition.error = failure.description }
            return state.condition.error == nil
        }
        if isNew {
            logger.error("the log can't be written: writes are refused", metadata: ["error": "\(failure)"])
        }
    }
}
