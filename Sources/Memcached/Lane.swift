// SPDX-License-Identifier: Apache-2.0

private import Glibc
internal import KeyValue
private import NIOCore

/// One thread with connections of its own. It takes what waits in its queue, reads it in one request to memcached and
/// then sends what is to be written in another.
struct Lane {
    let queue: LaneQueue
    let endpoint: MemcachedEndpoint
    let settings: MemcachedSettingsCell
    let clock: WorkerClock
    let log: (any StoredLog)?
    let metrics: LaneMetrics

    private static let leastTime = TimeAmount.milliseconds(10)

    /// Starts the thread; it ends once the queue is closed and empty.
    func start(named name: String) {
        OwnThread.start(named: name) { [self] in
            var handle = MemcachedHandle(endpoint, settings: settings)
            var pipeline = WritePipeline(endpoint)
            var run = BatchRun(clock: clock, settings: settings, log: log)
            while let items = queue.next(limit: Limits.laneBatchOperations) {
                work(items, &run, &handle, &pipeline)
            }
        }
    }

    private func work(
        _ items: [LaneQueue.Item], _ run: inout BatchRun, _ handle: inout MemcachedHandle,
        _ pipeline: inout WritePipeline
    ) {
        let now = NIODeadline.now()
        var answers: [(item: LaneQueue.Item, result: LaneBatchResult)] = []
        answers.reserveCapacity(items.count)
        var live: [LaneQueue.Item] = []
        live.reserveCapacity(items.count)
        for item in items {
            // One whose time is nearly up would cut the others' short.
            if item.ticket.take(), item.batch.deadline > now + Lane.leastTime {
                live.append(item)
            } else {
                answers.append((item, .failing(item.batch, .notApplied(.memcachedUnavailable))))
            }
        }
        for (item, _) in answers { metrics.wereLate(item.batch.operations.count) }
        if !live.isEmpty {
            for (item, result) in zip(live, run.perform(live.map(\.batch), on: &handle, &pipeline)) {
                answers.append((item, result))
            }
            metrics.turned(
                live.reduce(0) { $0 + $1.batch.operations.count }, nanoseconds: (NIODeadline.now() - now).nanoseconds)
        }
        Lane.deliver(answers)
    }

    /// One hop for all whose event loop is the same.
    private static func deliver(_ answers: [(item: LaneQueue.Item, result: LaneBatchResult)]) {
        var rest = answers[...]
        while let loop = rest.first?.item.loop {
            let group = rest.prefix { $0.item.loop === loop }
            rest = rest.dropFirst(group.count)
            loop.execute {
                for (item, result) in group { item.completion(result) }
            }
        }
    }
}

/// A detached thread, for C calls that block.
package enum OwnThread {
    private final class Body {
        let name: String
        let run: @Sendable () -> Void

        init(_ name: String, _ run: @escaping @Sendable () -> Void) {
            self.name = name
            self.run = run
        }
    }

    /// - Parameter name: at most 15 bytes, for `top -H` and debuggers.
    package static func start(named name: String, _ body: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                let body = Unmanaged<Body>.fromOpaque(argument).takeRetainedValue()
                OwnThread.nameThisThread(body.name)
                body.run()
                return nil
            }, Unmanaged.passRetained(Body(name, body)).toOpaque())
        // Only the kernel's limit of threads stands in the way, and without its threads a worker is of no use.
        precondition(code == 0, "can't start a thread: \(String(cString: strerror(code)))")
        pthread_detach(thread)
    }

    /// (`pthread_setname_np` is not there for Swift.)
    private static func nameThisThread(_ name: String) {
        guard let file = fopen("/proc/thread-self/comm", "w") else { return }
        fputs(name, file)
        fclose(file)
    }
}
