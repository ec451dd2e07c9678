// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import Memcached
import NIOCore
import Testing

/// What a gaining node answers others that lost what was verified, and stands on cleaning.
struct ForgetfulGainerTests {
    private static let (loser, gainer) = (QuorumFixtures.nodes[0], QuorumFixtures.nodes[1])

    /// One node gives everything to the other one, which is asked here.
    private static func document(_ step: RingTransition.Step, isAborted: Bool = false) throws -> RingDocument {
        let position = try #require(Position(0))
        let from = try #require(Ring(seats: [.init(position: position, node: loser)]))
        let to = try #require(Ring(seats: [.init(position: position, node: gainer)]))
        let transition = RingTransition(
            id: "c", change: .replace(old: loser, new: gainer), from: from, to: to, step: step,
            abortReason: isAborted ? "enough" : nil)
        return RingDocument(epoch: Epoch(5), ring: isAborted ? from : to, replicas: 1, transition: transition)
    }

    /// Each of a read, a stamped and a fixed write, by another node under the same document.
    private static func refusals(_ document: RingDocument, isRecovering: Bool) async throws -> [Bool] {
        let key = try #require(Key("k"))
        let stored = StoredKey(key)
        let envelope = Envelope(
            key: key, storedKey: stored, value: ByteBuffer(string: "v"), version: Version(time: 7, writer: 1))
        let batch = PeerBatch(
            epoch: document.epoch, clock: 0,
            operations: [.read(stored), .stamp(stored, envelope), .apply(stored, envelope)])
        return try await LoneCoordinator.run(of: gainer) { coordinator, loop in
            try await loop.flatSubmit {
                let stamp = HostStamp(epoch: document.epoch, generation: Generation(1), isRecovering: isRecovering)
                coordinator.value.adopt(RingView(stamp: stamp, document: document, node: gainer))
                let promise = loop.makePromise(of: [Bool].self)
                coordinator.value.serve(batch) { served in
                    guard case .answer(let answer) = served else { return promise.succeed([]) }
                    promise.succeed(answer.outcomes.map { $0 == .failed(.notApplied(.recovering)) })
                }
                return promise.futureResult
            }.get()
        }
    }

    @Test("nothing is acknowledged by it alone, not even a write whose version is fixed: the change may yet go back")
    func acknowledgesNothing() async throws {
        #expect(
            try await Self.refusals(Self.document(.cleaning), isRecovering: true) == [true, true, true])
    }

    @Test(
        "fixed writes are taken by who recovers otherwise",
        arguments: [(.settling, false), (.cleaning, true)] as [(RingTransition.Step, Bool)])
    func takesFixedWrites(step: RingTransition.Step, isAborted: Bool) async throws {
        let document = try Self.document(step, isAborted: isAborted)
        let refusals = try await Self.refusals(document, isRecovering: true)
        // (After an abort it holds nothing any more.)
        #expect(isAborted ? !refusals.contains(true) : refusals == [true, true, false], "\(refusals)")
    }

    @Test("a memory that is whole refuses nothing")
    func isWhole() async throws {
        let refusals = try await Self.refusals(Self.document(.cleaning), isRecovering: false)
        #expect(refusals == [false, false, false])
    }
}
