// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import NIOCore
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
                Heartbeat.Measurement(node: try #require(NodeID("10.0.0.\($0.offset + 1):1")), milliseconds: $0.element)
            })
        #expect(heartbeat.isClockAhead == isAhead)
    }

    @Test("how much slower a node answers counts in doublings, above what a busy processor does, and while it is news")
    func slowness() throws {
        let node = try #require(NodeID("10.0.0.1:1"))
        let now = NIODeadline.now()
        var news = HeartbeatNews()
        #expect(news.slowness(of: node) == .quick)
        for (milliseconds, doublings) in [(0, 0), (7, 0), (8, 1), (15, 1), (16, 2), (31, 2), (200, 5)] as [(Int64, Int)]
        {
            news.heard(
                Heartbeat(roundTrips: [.init(node: node, milliseconds: milliseconds)]), until: now + .seconds(3))
            #expect(news.slowness(of: node, at: now).doublings == doublings)
            #expect(news.slowness(of: node, at: now + .seconds(3)) == .quick)
        }
    }
}
