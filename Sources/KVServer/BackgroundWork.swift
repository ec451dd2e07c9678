// SPDX-License-Identifier: Apache-2.0

internal import HTTPFront
private import KeyValue
private import Synchronization

/// Where the worker's long works run: one task group, entered from anywhere without waiting, bounded, and cancelled as
/// a whole when the worker leaves.
final class BackgroundWork: OperatorTasks {
    typealias Work = @Sendable () async -> Void

    /// Works of each kind at once. The node's own, nil, have their places too: it drives a change and does its part of
    /// it, however much is asked of it.
    private static func limit(of kind: OperatorTaskKind?) -> Int {
        switch kind {
        case .request, .peerCall: 128
        case .batch, .look: 8
        case .stream: 4
        case .watch: Limits.ringWatchers
        case nil: 32
        }
    }

    private struct Running {
        var works: [OperatorTaskKind?: Int] = [:]
        var isClosed = false
    }

    private let running = Mutex(Running())
    private let works: AsyncStream<Work>
    private let sink: AsyncStream<Work>.Continuation
    /// Ends when the works are to be cancelled.
    private let patience: AsyncStream<Void>
    private let patienceSink: AsyncStream<Void>.Continuation

    init() {
        (works, sink) = AsyncStream.makeStream()
        (patience, patienceSink) = AsyncStream.makeStream()
    }

    /// Runs what is handed over, until it is closed and all is done.
    func run() async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { [works] in
                await withDiscardingTaskGroup { group in
                    for await work in works { group.addTask { await work() } }
                }
            }
            group.addTask { [patience] in for await _ in patience {} }
            await group.next()
            group.cancelAll()
        }
    }

    /// Takes nothing more.
    func close() {
        running.withLock { $0.isClosed = true }
        sink.finish()
    }

    /// Takes nothing more, and lets go of what runs.
    func cancel() {
        close()
        patienceSink.finish()
    }

    func run(_ kind: OperatorTaskKind, _ work: @escaping Work) -> Bool { start(work, of: kind) }

    /// For the node's own works.
    func runOwn(_ work: @escaping Work) -> Bool { start(work, of: nil) }

    private func start(_ work: @escaping Work, of kind: OperatorTaskKind?) -> Bool {
        let isTaken = running.withLock { running in
            let count = running.works[kind, default: 0]
            guard !running.isClosed, count < BackgroundWork.limit(of: kind) else { return false }
            running.works[kind] = count + 1
            return true
        }
        guard isTaken else { return false }
        let yielded = sink.yield { [self] in
            await work()
            running.withLock { $0.works[kind, default: 0] -= 1 }
        }
        if case .enqueued = yielded { return true }
        return false
    }
}
