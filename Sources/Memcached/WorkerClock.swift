// SPDX-License-Identifier: Apache-2.0

private import Glibc
package import KeyValue
private import Synchronization

/// The hybrid clock of one worker process, shared by its event loop, its lanes and its control plane: a lock for some
/// nanoseconds, once for each write.
package final class WorkerClock: Sendable {
    private let clock: Mutex<HybridClock>
    private let offsetMicroseconds: Int64
    private let refused = Atomic<Int>(0)

    /// - Parameters:
    ///   - writer: never the same for two worker processes that may write the same pair; a random number does.
    ///   - offsetMilliseconds: added to the wall clock; other than 0 in tests only.
    package init(writer: UInt32, offsetMilliseconds: Int64 = 0) {
        self.clock = Mutex(HybridClock(writer: writer))
        self.offsetMicroseconds = offsetMilliseconds * 1000
    }

    /// A version for a new write, newer than `other` and than all that this clock gave or heard of.
    package func tick(after other: Version = .none) -> Version {
        let wall = wallMicroseconds
        return clock.withLock { $0.tick(wallMicroseconds: wall, after: other) }
    }

    /// A version for a pair that was not there: see `HybridClock.early`.
    package func early() -> Version {
        let wall = wallMicroseconds
        return clock.withLock { $0.early(wallMicroseconds: wall) }
    }

    /// What this clock shows now, without counting as a write.
    package var reading: UInt64 {
        let wall = wallMicroseconds
        return clock.withLock { max($0.last, wall << 12) }
    }

    /// Takes another clock's reading into account, unless it is too far ahead to be right.
    @discardableResult
    package func merge(_ time: UInt64) -> Bool {
        let wall = wallMicroseconds
        let isTaken = clock.withLock { $0.merge(time, wallMicroseconds: wall) }
        if !isTaken { refused.add(1, ordering: .relaxed) }
        return isTaken
    }

    /// How many readings of other clocks were refused because they were too far ahead.
    package var refusedCount: Int { refused.load(ordering: .relaxed) }

    /// The wall clock, in milliseconds since 1970.
    package var wallMilliseconds: UInt64 { wallMicroseconds / 1000 }

    private var wallMicroseconds: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        let microseconds = Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
        return UInt64(max(microseconds + offsetMicroseconds, 0))
    }
}
