// SPDX-License-Identifier: Apache-2.0

private import Glibc

/// The same for all processes of a host, and never set back.
package enum MonotonicClock {
    package static func microseconds() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
    }

    package static func milliseconds() -> Int64 { microseconds() / 1000 }
}
