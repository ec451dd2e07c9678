// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import Memcached
import NIOCore
import TestSupport
import Testing

/// In which order a read asks: whose rank is lower is asked first.
struct CoordinatorRankTests {
    private typealias F = QuorumFixtures

    private static let own = F.nodes[0]

    private static func ranks(_ change: @escaping @Sendable (Coordinator) -> Void) async throws -> [Int] {
        try await LoneCoordinator.run(of: own) { coordinator, loop in
            try await loop.submit {
                change(coordinator.value)
                return F.nodes.map { coordinator.value.rank(of: $0) }
            }.get()
        }
    }

    @Test("this host is asked first, and of others none before another as long as nothing is known of them")
    func nothingIsKnown() async throws {
        #expect(try await Self.ranks { _ in } == [0, 1, 1, 1, 1, 1])
    }

    @Test("a host whose memory was lost is asked last by its own workers: its answer does not count")
    func recovering() async throws {
        let ranks = try await Self.ranks { coordinator in
            let stamp = HostStamp(epoch: Epoch(1), generation: Generation(1), isRecovering: true)
            coordinator.adopt(RingView(stamp: stamp, document: nil, node: Self.own))
            coordinator.heartbeat.heard(Heartbeat(silent: [F.nodes[1]]), until: .now() + .seconds(60))
        }
        #expect(ranks[0] > ranks[1] && ranks[1] > ranks[2] && ranks[2] == 1)
    }

    @Test("the slower others answer the later they are asked, and last whoever is silent, as long as that is news")
    func slowOnesAndSilentOnes() async throws {
        let heartbeat = Heartbeat(
            silent: [F.nodes[4]],
            roundTrips: [
                .init(node: F.nodes[1], milliseconds: 200), .init(node: F.nodes[2], milliseconds: 20),
                .init(node: F.nodes[3], milliseconds: 2), .init(node: F.nodes[4], milliseconds: 2),
            ])
        let ranks = try await Self.ranks { $0.heartbeat.heard(heartbeat, until: .now() + .seconds(60)) }
        let order = F.nodes.indices.sorted { ranks[$0] < ranks[$1] }
        #expect(order.first == 0 && Array(order[3...]) == [2, 1, 4], "\(ranks)")
        #expect(ranks[3] == ranks[5] && ranks[3] == 1)
        #expect(try await Self.ranks { $0.heartbeat.heard(heartbeat, until: .now()) } == [0, 1, 1, 1, 1, 1])
    }

    /// The rank of another node that holds everything alone, after this worker has asked it for a pair.
    private static func rank(after reply: FakePeer.Reply, isGone: Bool = false) async throws -> Int {
        try await LoneCoordinator.run(of: own) { coordinator, loop in
            let peer = try await FakePeer.start([reply], on: loop)
            if isGone { try await peer.end() }
            let key = try #require(Key("k"))
            let position = try #require(Position(0))
            let ring = try #require(Ring(seats: [Ring.Seat(position: position, node: peer.node)]))
            let rank = try await loop.flatSubmit {
                let stamp = HostStamp(epoch: Epoch(1), generation: Generation(1))
                let document = RingDocument(epoch: Epoch(1), ring: ring)
                coordinator.value.adopt(RingView(stamp: stamp, document: document, node: Self.own))
                let promise = loop.makePromise(of: Int.self)
                coordinator.value.read(key, nil) { _ in promise.succeed(coordinator.value.rank(of: peer.node)) }
                return promise.futureResult
            }.get()
            if !isGone { try await peer.end() }
            return rank
        }
    }

    @Test("what this worker's own requests found counts, too")
    func ownRequests() async throws {
        var body = ByteBuffer()
        PeerBatchCodec.encode(
            PeerBatchAnswer(epoch: Epoch(1), generation: Generation(1), clock: 0, outcomes: [.record(nil)]), into: &body
        )
        var slow = FakePeer.Reply(body: Array(body.readableBytesView))
        slow.delay = .milliseconds(100)
        let slowRank = try await Self.rank(after: slow)
        #expect(slowRank > Slowness(of: .milliseconds(100)).doublings)
        let goneRank = try await Self.rank(after: slow, isGone: true)
        #expect(goneRank > slowRank && goneRank < .max)
    }
}
