// SPDX-License-Identifier: Apache-2.0

/// Which of two writes of a key is the newer one: a hybrid logical clock's reading, ties broken by who wrote.
package struct Version: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// 52 bits of microseconds since 1970 and 12 bits of counter, as one number that orders both.
    package let time: UInt64
    /// Drawn at random by each worker process.
    package let writer: UInt32

    /// Older than anything a clock makes: what a missing pair has.
    package static let none = Version(time: 0, writer: 0)

    package init(time: UInt64, writer: UInt32) {
        self.time = time
        self.writer = writer
    }

    package var microseconds: UInt64 { time >> 12 }

    /// A time that no clock shows before the year 2112. What comes from another node may not be above it, so that there
    /// is always room for newer versions.
    package static let latestTime = UInt64.max - (1 << 44)
    /// And what was stamped over such a version may not be above this one.
    package static let latestStoredTime = UInt64.max - (1 << 43)

    package static func < (left: Version, right: Version) -> Bool {
        (left.time, left.writer) < (right.time, right.writer)
    }

    /// 24 hexadecimal digits that order as text just as versions do.
    package var description: String {
        func padded(_ text: String, _ width: Int) -> String {
            String(repeating: "0", count: width - text.utf8.count) + text
        }
        return padded(String(time, radix: 16), 16) + padded(String(writer, radix: 16), 8)
    }
}

extension UInt64 {
    /// The next reading; the highest stays what it is.
    fileprivate var advanced: UInt64 { self == .max ? self : self + 1 }
}

/// A worker's clock: never goes back, never gives the same reading twice. The wall clock is an argument.
package struct HybridClock: Hashable, Sendable {
    package private(set) var last: UInt64 = 0
    package let writer: UInt32

    package init(writer: UInt32) { self.writer = writer }

    /// A version newer than all this clock gave or heard of, and newer than `other`.
    /// - Parameter wallMicroseconds: the wall clock, in microseconds since 1970.
    package mutating func tick(wallMicroseconds: UInt64, after other: Version = .none) -> Version {
        // (At the end of time nothing is newer; what is stored can't bring that about.)
        last = max(wallMicroseconds << 12, last.advanced, other.time.advanced)
        return Version(time: last, writer: writer)
    }

    /// Takes another clock's reading into account; what is more than `Limits.clockAheadMilliseconds` ahead is refused.
    /// - Returns: whether it was taken.
    package mutating func merge(_ time: UInt64, wallMicroseconds: UInt64) -> Bool {
        guard HybridClock.isPlausible(time, wallMicroseconds: wallMicroseconds) else { return false }
        last = max(last, time)
        return true
    }

    /// Whether a reading is at most `Limits.clockAheadMilliseconds` ahead of the wall clock.
    package static func isPlausible(_ time: UInt64, wallMicroseconds: UInt64) -> Bool {
        time >> 12 <= wallMicroseconds + UInt64(Limits.clockAheadMilliseconds) * 1000
    }
}
