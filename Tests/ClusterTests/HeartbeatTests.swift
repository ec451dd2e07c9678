// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import Testing

/// Whose clock is taken for wrong.
struct HeartbeatTests {
    @Test(
        arguments: [
            ([], false), ([-3_600_000], false), ([-11_000, -11_000], true), ([-9_000, -9_000], false),
            ([-11_000, 0], false), ([-11_000, -11_000, 0], true), ([-11_000, -11_000, 0, 0], false),
            ([3_600_000, 3_600_000], false), ([-3_600_000, 3_600_000], false),
        ] as [([Int64], Bool)])
    func aheadOfMostAndOfTwoAtLeast(_ offsets: [Int64], _ isAhead: Bool) throws {
        let heartbeat = Heartbeat(
            offsets: try offsets.enumerated().map {
                Heartbeat.Offset(node: try #require(NodeID("10.0.0.\($0.offset + 1):1")), milliseconds: $0.element)
            })
        #expect(heartbeat.isClockAhead == isAhead)
    }
}
