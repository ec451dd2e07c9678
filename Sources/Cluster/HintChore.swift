// SPDX-License-Identifier: Apache-2.0

private import HashRing
private import KeyValue
package import Logging
package import Memcached

/// Hands hints on, as long as this host may have some: one worker at a time, by a lease of its own. While nodes are
/// away it looks ever more seldom, and at once when one of them is back or the ring has changed.
package struct HintChore: Sendable {
    private static let pollInterval = Duration.milliseconds(500)
    private static let leaseName = "hints"
    private static let leaseLife = Duration.milliseconds(3000)
    private static let shortestPauseMilliseconds: Int64 = 1000
    private static let longestPauseMilliseconds: Int64 = 30_000
    /// A pass takes at most this part of the time.
    private static let share: Int64 = 10

    private let with: HintPass.Dependencies
    private let board: HintBoard
    private let heartbeats: HeartbeatBoard
    private let keeper: RingKeeper
    private let leases: LeaseStore
    private let logger: Logger
    private let holder: String

    /// What one worker remembers between two passes.
    private struct Memory {
        var silent: Set<NodeID> = []
        var epoch: Epoch?
        /// When the next pass is due, and how early it may begin where hints are refused meanwhile.
        var nextMilliseconds: Int64 = 0
        var earliestMilliseconds: Int64 = 0
        var pauseMilliseconds = HintChore.shortestPauseMilliseconds
        var refused = 0
        var failure: String?
    }

    package init(
        _ dependencies: HintPass.Dependencies, board: HintBoard, heartbeats: HeartbeatBoard, keeper: RingKeeper,
        leases: LeaseStore, logger: Logger
    ) {
        self.with = dependencies
        self.board = board
        self.heartbeats = heartbeats
        self.keeper = keeper
        self.leases = leases
        self.logger = logger
        self.holder = String(UInt64.random(in: .min ... .max), radix: 16)
    }

    /// Runs until it is cancelled.
    package func run() async {
        var memory = Memory()
        while (try? await Task.sleep(for: HintChore.pollInterval)) != nil {
            guard let entry = await board.entry(), entry.mayHaveHints,
                (try? await leases.acquire(
                    HintChore.leaseName, holder: holder, timeToLive: HintChore.leaseLife)) == true,
                let view = await keeper.view, let table = view.table
            else {
                memory = Memory(refused: memory.refused, failure: memory.failure)
                continue
            }
            // Hints that were overwritten count twice until they are counted anew.
            let areRefused = tellOfRefusals(entry, &memory)
            let silent = await Set(heartbeats.latest().heartbeat.silent)
            let isNews = !memory.silent.isSubset(of: silent) || memory.epoch != table.document.epoch
            memory.silent = silent
            memory.epoch = table.document.epoch
            if isNews { memory.pauseMilliseconds = HintChore.shortestPauseMilliseconds }
            if areRefused { memory.nextMilliseconds = memory.earliestMilliseconds }
            guard isNews || MonotonicClock.milliseconds() >= memory.nextMilliseconds else { continue }
            await pass(entry, HintPass(with, table, under: view.stamp, silent: silent), &memory)
        }
    }

    private func pass(_ before: HintBoard.Entry, _ pass: HintPass, _ memory: inout Memory) async {
        let began = MonotonicClock.milliseconds()
        do {
            let (count, failure) = try await leases.holding(
                HintChore.leaseName, holder: holder, timeToLive: HintChore.leaseLife
            ) { try await HintChore.attempt(pass) }
            tell(count, failure, &memory)
            if let failure {
                _ = try await board.update { $0.failed(count, failure) }
            } else {
                _ = try await board.update { $0.passed(count, since: before, at: began) }
            }
            memory.pauseMilliseconds =
                count.delivered > 0
                ? HintChore.shortestPauseMilliseconds
                : min(2 * memory.pauseMilliseconds, HintChore.longestPauseMilliseconds)
        } catch {
            // Another worker has the lease, or memcached does not answer: what was to be shown is shown later.
            logger.debug("a pass over hints was given up", metadata: ["error": "\(error)"])
        }
        let now = MonotonicClock.milliseconds()
        let rest = HintChore.share * (now - began)
        memory.nextMilliseconds = now + max(memory.pauseMilliseconds, rest)
        memory.earliestMilliseconds = now + max(HintChore.shortestPauseMilliseconds, rest)
    }

    /// What it has done counts, also where it fails.
    private static func attempt(_ pass: HintPass) async throws -> (count: HintCount, failure: String?) {
        var pass = pass
        do {
            try await pass.run()
            return (pass.count, nil)
        } catch is CancellationError {
            // This worker leaves, or has lost the lease.
            throw CancellationError()
        } catch {
            return (pass.count, "\(error)")
        }
    }

    private func tell(_ count: HintCount, _ failure: String?, _ memory: inout Memory) {
        if let failure, failure != memory.failure {
            logger.warning("hints could not all be handed on", metadata: ["error": "\(failure)"])
        }
        memory.failure = failure
        if count.delivered > 0 {
            logger.info(
                "hints were handed on", metadata: ["pairs": "\(count.delivered)", "left": "\(count.left.count)"])
        }
        if count.dropped > 0 {
            logger.error(
                "hints were dropped: so old that they might bring back what was deleted",
                metadata: ["pairs": "\(count.dropped)"])
        }
    }

    /// - Returns: whether some were refused since it was asked last.
    private func tellOfRefusals(_ entry: HintBoard.Entry, _ memory: inout Memory) -> Bool {
        defer { memory.refused = entry.refused }
        guard entry.refused > memory.refused else { return false }
        logger.warning(
            "hints are refused: this host keeps as many as it may",
            metadata: ["refused": "\(entry.refused)", "waiting": "\(entry.waiting.count)"])
        return true
    }
}
