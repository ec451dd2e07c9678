// SPDX-License-Identifier: Apache-2.0

import AccessControl
import Cluster
import HashRing
import KeyValue
import NIOCore
import NIOPosix
import Testing

/// What becomes of an operation, by what another node answers to it.
struct RemoteReplicaTests {
    private typealias F = QuorumFixtures

    private static let key = StoredKey(Key("k")!)
    private static let read = Operation.read(key)
    private static let write = Operation.apply(key, F.envelope(1))
    private static let notApplied = [("X-KV-Outcome", "not-applied")]

    private static func outcomes(_ outcomes: [Outcome]) -> [UInt8] {
        var body = ByteBuffer()
        PeerBatchCodec.encode(
            PeerBatchAnswer(epoch: Epoch(1), generation: Generation(1), clock: 0, outcomes: outcomes), into: &body)
        return Array(body.readableBytesView)
    }

    /// Sends the operations one after the other.
    private static func outcomes(
        of operations: [Operation], by replies: [FakePeer.Reply]
    ) async throws -> (outcomes: [Outcome], requests: Int, slowness: Slowness, isInTrouble: Bool, refusals: Int) {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let peer = try await FakePeer.start(replies, on: loop)
        let refusals = try await loop.submit { NIOLoopBoundBox(0, eventLoop: loop) }.get()
        let door = PeerDoor(node: try #require(NodeID("127.0.0.1:1")))
        let replica = try await loop.submit {
            NIOLoopBound(
                RemoteReplica(
                    node: peer.node, door: door, loop: loop, metrics: CoordinatorMetrics(),
                    hooks: RemoteReplica.Hooks(
                        epoch: { Epoch(1) }, clock: { 0 }, merge: { _ in }, refused: { _, _ in refusals.value += 1 })),
                eventLoop: loop)
        }.get()
        var outcomes: [Outcome] = []
        for operation in operations {
            let outcome = try await loop.flatSubmit {
                let promise = loop.makePromise(of: Outcome.self)
                replica.value.send(
                    Leg(operation, epoch: Epoch(1), deadline: .now() + .seconds(2)) { promise.succeed($0) })
                return promise.futureResult
            }.get()
            outcomes.append(outcome)
        }
        let (requests, slowness, isInTrouble, refused) = try await loop.submit {
            replica.value.close()
            return (peer.requestCount, replica.value.slowness, replica.value.isInTrouble, refusals.value)
        }.get()
        try await peer.end()
        return (outcomes, requests, slowness, isInTrouble, refused)
    }

    @Test("who refuses is there: nobody may stand in for it")
    func refusals() async throws {
        let replies: [(FakePeer.Reply, OperationFailure, OperationFailure)] = [
            (.init(status: 503), .notApplied(.overloaded), .outcomeUnknown(.overloaded)),
            (
                .init(status: 503, headers: Self.notApplied), .notApplied(.overloaded), .notApplied(.overloaded)
            ),
            (.init(status: 500), .notApplied(.protocolViolation), .outcomeUnknown(.protocolViolation)),
            (
                .init(status: 404, headers: Self.notApplied), .notApplied(.protocolViolation),
                .notApplied(.protocolViolation)
            ),
        ]
        for (reply, ofRead, ofWrite) in replies {
            let result = try await Self.outcomes(of: [Self.read, Self.write], by: [reply])
            #expect(result.outcomes == [.failed(ofRead), .failed(ofWrite)], "\(reply)")
            #expect(!ofRead.isAbsence && !ofWrite.isAbsence && !result.isInTrouble)
            #expect(result.requests == 2, "nothing is asked again")
        }
    }

    @Test("whose ring differs says so, and nothing is done")
    func otherRing() async throws {
        let result = try await Self.outcomes(of: [Self.read, Self.write], by: [.init(status: 409)])
        #expect(result.outcomes == [.failed(.staleRing), .failed(.staleRing)])
        #expect(result.refusals == 2)
    }

    @Test("a read whose connection breaks is asked again, a write is not: it may be done")
    func brokenConnections() async throws {
        let good = FakePeer.Reply(body: Self.outcomes([.record(nil)]))
        let again = try await Self.outcomes(of: [Self.read], by: [.init(hangsUp: true), good])
        #expect(again.outcomes == [.record(nil)] && again.requests == 2)

        let write = try await Self.outcomes(of: [Self.write], by: [.init(hangsUp: true), good])
        #expect(write.outcomes == [.failed(.outcomeUnknown(.nodeUnreachable))] && write.requests == 1)

        let never = try await Self.outcomes(of: [Self.read], by: [.init(hangsUp: true)])
        #expect(never.outcomes == [.failed(.notApplied(.nodeUnreachable))])
        #expect(never.requests == 1 + Limits.readTries)
    }

    @Test("a kept connection that breaks costs a read none of its tries")
    func keptConnectionBreaks() async throws {
        let good = FakePeer.Reply(body: Self.outcomes([.record(nil)]))
        let bad = FakePeer.Reply(hangsUp: true)
        let tries = [FakePeer.Reply](repeating: bad, count: Limits.readTries)
        let result = try await Self.outcomes(of: [Self.read, Self.read], by: [good, bad] + tries + [good])
        #expect(result.outcomes == [.record(nil), .record(nil)])
    }

    @Test("an answer that is no answer to the batch is nothing to go by")
    func nonsense() async throws {
        for body in [[], Self.outcomes([]), Self.outcomes([.record(nil), .record(nil)])] {
            let result = try await Self.outcomes(of: [Self.read, Self.write], by: [.init(body: body)])
            #expect(
                result.outcomes == [
                    .failed(.notApplied(.protocolViolation)), .failed(.outcomeUnknown(.protocolViolation)),
                ])
        }
    }

    @Test("a slow answer is remembered, a quick one after it does not undo that; silence is trouble, and asked again")
    func slowness() async throws {
        let good = FakePeer.Reply(body: Self.outcomes([.record(nil)]))
        var slow = good
        slow.delay = .milliseconds(100)
        // (Others use the loop as well.)
        #expect(try await Self.outcomes(of: [Self.read], by: [good]).slowness < Slowness(of: .milliseconds(100)))
        let result = try await Self.outcomes(of: [Self.read, Self.read], by: [slow, good])
        #expect(result.slowness >= Slowness(of: .milliseconds(100)) && !result.isInTrouble)

        var silent = good
        silent.delay = .seconds(5)
        let asked = try await Self.outcomes(of: [Self.read], by: [silent, good])
        #expect(asked.outcomes == [.record(nil)] && asked.requests == 2 && asked.isInTrouble)
    }
}
