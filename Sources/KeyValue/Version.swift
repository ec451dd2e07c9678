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

    /// A version right behind this one: no clock makes one between the two, for that would have to show the same time
    /// to the last bit, and a writer's number that is as close.
    /// - Parameter step: at least 1; by chance, so that two that follow the same version differ, wherever they come
    ///   from.
    package func successor(by step: UInt32) -> Version {
        let (next, isOver) = writer.addingReportingOverflow(step)
        return Version(time: isOver ? time.advanced : time, writer: next)
    }

    /// Reads what `description` writes; nil for anything else.
    package init?(_ text: some Collection<UInt8>) {
        guard text.count == 24 else { return nil }
        var digits: [UInt64] = []
        for byte in text {
            switch byte {
            case 0x30...0x39: digits.append(UInt64(byte - 0x30))
            case 0x61...0x66: digits.append(UInt64(byte - 0x57))
            default: return nil
            }
        }
        let time = digits[..<16].reduce(0) { $0 << 4 | $1 }
        self.init(time: time, writer: UInt32(digits[16...].reduce(0) { $0 << 4 | $1 }))
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

    /// A version for a pair that was not there: `Limits.createdEarlyMilliseconds` before the wall clock, so that it is
    /// older than what any host writes at the same time. What this clock heard of does not count, for that may be the
    /// version of a host whose clock was far ahead.
    package mutating func early(wallMicroseconds: UInt64) -> Version {
        let ahead = UInt64(Limits.createdEarlyMilliseconds) * 1000
        let wall = wallMicroseconds > ahead ? wallMicroseconds - ahead : 0
        let counter = tick(wallMicroseconds: wallMicroseconds).time & HybridClock.counterMask
        // (The writer is changed, for this worker gave versions of that time itself.)
        return Version(time: max(wall << 12 | counter, 1), writer: writer ^ (1 << 31))
    }

    private static let counterMask: UInt64 = (1 << 12) - 1

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
