// SPDX-License-Identifier: Apache-2.0

/// Counts of nanoseconds in buckets that grow with the value, each less than 1 % wide (as HdrHistogram's do): any
/// number of measurements in 40 kB, and any two of them add up.
package struct LatencyHistogram: Hashable, Sendable {
    /// Values below 2^8 have a bucket each; above, every power of two has 128.
    private static let linearBits = 8
    private static let half = 128
    /// A little over an hour. What is above counts as that.
    package static let largest: UInt64 = 1 << 42

    private var counts: [UInt64]
    package private(set) var count: UInt64 = 0
    package private(set) var smallest: UInt64 = .max
    package private(set) var greatest: UInt64 = 0
    private var sum = 0.0

    package init() {
        counts = [UInt64](repeating: 0, count: LatencyHistogram.index(of: LatencyHistogram.largest) + 1)
    }

    package mutating func record(_ nanoseconds: UInt64) {
        let value = min(nanoseconds, LatencyHistogram.largest)
        counts[LatencyHistogram.index(of: value)] += 1
        count += 1
        smallest = min(smallest, value)
        greatest = max(greatest, value)
        sum += Double(value)
    }

    package mutating func add(_ other: LatencyHistogram) {
        for index in counts.indices { counts[index] += other.counts[index] }
        count += other.count
        smallest = min(smallest, other.smallest)
        greatest = max(greatest, other.greatest)
        sum += other.sum
    }

    package var mean: Double { count > 0 ? sum / Double(count) : 0 }

    /// So many percent of the measurements are at most this; at most 1 % too large. 0 where there are none.
    package func value(atPercentile percentile: Double) -> UInt64 {
        guard count > 0 else { return 0 }
        let wanted = max(UInt64((Double(count) * min(max(percentile, 0), 100) / 100).rounded(.up)), 1)
        var seen: UInt64 = 0
        for (index, number) in counts.enumerated() {
            seen += number
            if seen >= wanted { return min(max(LatencyHistogram.upperBound(of: index), smallest), greatest) }
        }
        return greatest
    }

    private static func index(of value: UInt64) -> Int {
        let shift = max(UInt64.bitWidth - value.leadingZeroBitCount - linearBits, 0)
        return shift * half + Int(value >> UInt64(shift))
    }

    /// The largest value that falls into the bucket.
    private static func upperBound(of index: Int) -> UInt64 {
        guard index >= 2 * half else { return UInt64(index) }
        let shift = UInt64(index / half - 1)
        let start = UInt64(index) - shift * UInt64(half)
        return (start + 1) << shift - 1
    }
}
