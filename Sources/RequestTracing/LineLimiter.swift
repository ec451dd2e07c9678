// SPDX-License-Identifier: Apache-2.0

/// Lets so many lines through in each second, and counts the others. Time is an argument, in nanoseconds.
package struct LineLimiter: Hashable, Sendable {
    package enum Verdict: Hashable, Sendable {
        case write
        /// It is counted, and the first one of its second: ask for the `report` at this time.
        case leaveOutAndReport(atNanoseconds: UInt64)
        case leaveOut
    }

    private static let second: UInt64 = 1_000_000_000

    private let linesPerSecond: Int
    private var end: UInt64 = 0
    private var written = 0
    private var leftOut = 0

    package init(linesPerSecond: Int) { self.linesPerSecond = linesPerSecond }

    package mutating func admit(atNanoseconds now: UInt64) -> Verdict {
        if now >= end {
            end = now + LineLimiter.second
            written = 0
        }
        if written < linesPerSecond {
            written += 1
            return .write
        }
        leftOut += 1
        return leftOut == 1 ? .leaveOutAndReport(atNanoseconds: end) : .leaveOut
    }

    /// How many lines were left out since the last report; the count begins again.
    package mutating func report() -> Int {
        defer { leftOut = 0 }
        return leftOut
    }
}
