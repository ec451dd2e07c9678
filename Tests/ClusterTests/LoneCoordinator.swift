// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import Memcached
import NIOCore
import NIOPosix
import TestSupport

/// A coordinator whose memcached is not there.
enum LoneCoordinator {
    static func run<Result: Sendable>(
        of node: NodeID, _ body: @Sendable (NIOLoopBound<Coordinator>, any EventLoop) async throws -> Result
    ) async throws -> Result {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let directory = try TemporaryDirectory()
        let clock = WorkerClock(writer: 1)
        let lanes = LaneGroup(
            .unixSocket(path: directory.path + "/nobody.sock"), clock: clock, settings: MemcachedSettingsCell())
        defer { lanes.close() }
        let coordinator = try await loop.submit {
            NIOLoopBound(
                Coordinator(node: node, loop: loop, lanes: lanes, clock: clock, requestTime: .seconds(2)),
                eventLoop: loop)
        }.get()
        let result = try await body(coordinator, loop)
        try await loop.submit { coordinator.value.adopt(nil) }.get()
        return result
    }
}
