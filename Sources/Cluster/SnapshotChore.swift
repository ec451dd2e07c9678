// SPDX-License-Identifier: Apache-2.0

private import HashRing
private import KeyValue
package import Logging
package import Memcached

/// Takes a snapshot of the host's pairs now and then: one worker at a time, by a lease of its own, for a pass over a
/// large host takes longer than the other chores may wait. (Two at once would be kept apart by the file's lock.)
package struct SnapshotChore: Sendable {
    private static let pollInterval = Duration.milliseconds(1000)
    private static let leaseName = "snapshot"
    private static let leaseLife = Duration.milliseconds(3000)
    /// Of an error, as `/status` shows it.
    private static let errorCharacters = 300

    private let interval: Duration
    private let writer: SnapshotWriter
    private let board: SnapshotBoard
    private let leases: LeaseStore
    private let clock: WorkerClock
    private let logger: Logger
    private let holder: String

    /// - Parameter interval: from the beginning of one snapshot to that of the next.
    package init(
        interval: Duration, writer: SnapshotWriter, board: SnapshotBoard, leases: LeaseStore, clock: WorkerClock,
        logger: Logger
    ) {
        self.interval = interval
        self.writer = writer
        self.board = board
        self.leases = leases
        self.clock = clock
        self.logger = logger
        self.holder = String(UInt64.random(in: .min ... .max), radix: 16)
    }

    /// Runs until it is cancelled.
    package func run() async {
        // A memory has the whole interval before its first snapshot.
        var memory: (generation: Generation, sinceMilliseconds: Int64)?
        var lastError: String?
        while (try? await Task.sleep(for: SnapshotChore.pollInterval)) != nil {
            guard (try? await holdLease()) == true, let generation = await writer.generation() else { continue }
            if memory?.generation != generation { memory = (generation, MonotonicClock.milliseconds()) }
            let before = await board.entry()
            let last = before?.begunMilliseconds ?? memory?.sinceMilliseconds ?? 0
            let age = Duration.milliseconds(MonotonicClock.milliseconds() - last)
            guard await isDue(at: age) else { continue }
            await attempt(before, &lastError)
        }
    }

    /// - Parameter age: of the last attempt.
    private func isDue(at age: Duration) async -> Bool {
        if age >= interval { return true }
        guard age >= .seconds(Limits.logSnapshotSeconds) else { return false }
        return await writer.isLogWanting()
    }

    private func attempt(_ before: SnapshotBoard.Entry?, _ lastError: inout String?) async {
        let began = ContinuousClock.now
        var entry = before ?? .init(begunMilliseconds: 0)
        // Shown first: should this worker die of it, the next one does not at once.
        entry.begunMilliseconds = MonotonicClock.milliseconds()
        await board.show(entry)
        do {
            let sum = try await leases.holding(
                SnapshotChore.leaseName, holder: holder, timeToLive: SnapshotChore.leaseLife
            ) {
                try await writer.write()
            }
            let seconds = ((ContinuousClock.now - began) / .milliseconds(1)).rounded() / 1000
            entry.finished = .init(
                atMilliseconds: clock.wallMilliseconds, pairs: sum.pairs, bytes: sum.bytes, seconds: seconds)
            entry.error = nil
            logger.log(
                level: lastError == nil ? .debug : .notice, "the pairs are on disk",
                metadata: ["pairs": "\(sum.pairs)", "bytes": "\(sum.bytes)", "seconds": "\(seconds)"])
            lastError = nil
        } catch is LeaseStore.Lost {
            // The board is the other one's now.
            return
        } catch is CancellationError {
            // This worker leaves; another one is to do it at once.
            entry.begunMilliseconds = before?.begunMilliseconds ?? 0
        } catch {
            let text = String("\(error)".prefix(SnapshotChore.errorCharacters))
            entry.error = text
            if text != lastError {
                logger.warning("the pairs could not be written to disk", metadata: ["error": "\(text)"])
            }
            lastError = text
        }
        await board.show(entry)
    }

    private func holdLease() async throws -> Bool {
        try await leases.acquire(SnapshotChore.leaseName, holder: holder, timeToLive: SnapshotChore.leaseLife)
    }
}
