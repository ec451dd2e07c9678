// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import Testing

struct QuorumReadTests {
    private typealias F = QuorumFixtures
    private let a = QuorumFixtures.nodes[0]
    private let b = QuorumFixtures.nodes[1]
    private let c = QuorumFixtures.nodes[2]

    @Test func oneGroupAnswersWithItsQuorum() {
        var read = QuorumRead([F.group(0, 1, 2)])
        #expect(read.begin() == .ask([a, b]))
        #expect(read.received(.record(F.envelope(1)), from: a) == .wait)
        #expect(read.isLate() == .ask([c]))
        #expect(read.isLate() == .wait)
        #expect(read.received(.record(F.envelope(1)), from: c) == .answer(F.envelope(1), repairing: []))
        #expect(read.received(.record(F.envelope(3)), from: b) == .wait)
    }

    @Test func whoFailsIsReplaced() {
        var read = QuorumRead([F.group(0, 1, 2)])
        #expect(read.begin() == .ask([a, b]))
        #expect(read.received(.failed(.notApplied(.recovering)), from: a) == .ask([c]))
        #expect(read.received(.record(nil), from: b) == .wait)
        #expect(read.received(.record(nil), from: c) == .answer(nil, repairing: []))
    }

    @Test func theBestRankIsAskedFirst() {
        let ranks = [a: 1, b: 2, c: 0]
        var read = QuorumRead([F.group(0, 1, 2)], rank: { ranks[$0] ?? 9 })
        #expect(read.begin() == .ask([c, a]))
    }

    @Test func aSloppyReadAnswersTheNewestAndMendsTheRest() {
        var read = QuorumRead([F.group(0, 1, 2)], .sloppy)
        _ = read.begin()
        #expect(read.received(.record(nil), from: a) == .wait)
        #expect(read.received(.record(F.envelope(2)), from: b) == .answer(F.envelope(2), repairing: [a]))
        #expect(read.received(.record(F.envelope(3)), from: c) == .wait)
    }

    /// The next reader may ask one side alone.
    @Test func whatMovesIsReadStrictly() {
        var read = QuorumRead([F.group(0), F.group(1)], .sloppy)
        _ = read.begin()
        _ = read.received(.record(F.envelope(2)), from: a)
        #expect(read.received(.record(nil), from: b) == .writeBack(F.envelope(2), to: [b]))
    }

    @Test(arguments: [(1, 1), (2, 2), (3, 3)])
    func asManyAsAreWanted(_ quorum: Int, _ asked: Int) {
        var read = QuorumRead([F.group(0, 1, 2)], Consistency(.sloppy, quorum: quorum))
        #expect(read.begin() == .ask(Array([a, b, c].prefix(asked))))
        for node in [a, b, c].prefix(asked - 1) { #expect(read.received(.record(nil), from: node) == .wait) }
        #expect(read.received(.record(nil), from: [a, b, c][asked - 1]) == .answer(nil, repairing: []))
    }

    @Test func moreThanThereAreIsRefused() {
        var read = QuorumRead([F.group(0, 1)], Consistency(.sloppy, quorum: 3))
        #expect(read.begin() == .fail(.notApplied(.tooFewReplicas)))
    }

    @Test func strictIsNeverLessThanAMajority() {
        var read = QuorumRead([F.group(0, 1, 2)], Consistency(.strict, quorum: 1))
        #expect(read.begin() == .ask([a, b]))
    }

    /// Or a later read, which meets other members, would go back in time.
    @Test func oneGroupHoldsWhatIsAnswered() {
        var read = QuorumRead([F.group(0, 1, 2)])
        #expect(read.received(.record(F.envelope(1)), from: a) == .wait)
        #expect(read.received(.record(F.envelope(2)), from: c) == .writeBack(F.envelope(2), to: [a]))
        #expect(read.wroteBack(.applied(newest: F.version(2)), to: a) == .answer(F.envelope(2), repairing: []))
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func aLateAnswerTakesThePlaceOfAWriteBackThatFails(_ held: UInt64) {
        var read = QuorumRead([F.group(0, 1, 2)], rank: { $0 == b ? 1 : 0 })
        _ = read.begin()
        _ = read.received(.record(F.envelope(1)), from: a)
        #expect(read.received(.record(F.envelope(2)), from: c) == .writeBack(F.envelope(2), to: [a]))
        #expect(read.wroteBack(.failed(.notApplied(.deadline)), to: a) == .ask([b]))
        let action = read.received(.record(F.envelope(held)), from: b)
        guard held < 2 else {
            #expect(action == .answer(F.envelope(2), repairing: []))
            return
        }
        #expect(action == .writeBack(F.envelope(2), to: [b]))
        #expect(read.wroteBack(.applied(newest: F.version(2)), to: b) == .answer(F.envelope(2), repairing: []))
    }

    @Test func aWriteBackThatReachesNoQuorumFails() {
        var read = QuorumRead([F.group(0, 1, 2)], rank: { $0 == b ? 1 : 0 })
        _ = read.begin()
        _ = read.received(.record(F.envelope(1)), from: a)
        _ = read.received(.record(F.envelope(2)), from: c)
        #expect(read.wroteBack(.failed(.notApplied(.deadline)), to: a) == .ask([b]))
        #expect(read.received(.failed(.notApplied(.deadline)), from: b) == .fail(.notApplied(.deadline)))
    }

    @Test func nothingAnywhereIsAnAnswer() {
        var read = QuorumRead([F.group(0), F.group(1)])
        #expect(read.begin() == .ask([a, b]))
        #expect(read.received(.record(nil), from: a) == .wait)
        #expect(read.received(.record(nil), from: b) == .answer(nil, repairing: []))
    }

    @Test(arguments: [(3, 3), (2, 1), (1, 2), (3, 0), (0, 3)] as [(UInt64, UInt64)])
    func twoSidesHoldWhatIsAnswered(_ old: UInt64, _ new: UInt64) {
        var read = QuorumRead([F.group(0), F.group(1)])
        #expect(read.received(.record(old == 0 ? nil : F.envelope(old)), from: a) == .wait)
        let action = read.received(.record(new == 0 ? nil : F.envelope(new)), from: b)
        guard old != new else {
            #expect(action == .answer(F.envelope(old), repairing: []))
            return
        }
        let (newest, lacking) = (F.envelope(max(old, new)), old > new ? b : a)
        #expect(action == .writeBack(newest, to: [lacking]))
        #expect(read.wroteBack(.applied(newest: F.version(9)), to: lacking) == .answer(newest, repairing: []))
        #expect(read.wroteBack(.applied(newest: F.version(9)), to: lacking) == .wait)
    }

    @Test func sharedMembersAreAskedOnceAndCountOnBothSides() {
        var read = QuorumRead([F.group(0, 1, 2), F.group(1, 2, 3)])
        #expect(read.begin() == .ask([a, b, c, F.nodes[3]]))
        #expect(read.received(.record(F.envelope(5)), from: b) == .wait)
        #expect(read.received(.record(F.envelope(4)), from: c) == .writeBack(F.envelope(5), to: [c]))
        #expect(read.received(.record(F.envelope(5)), from: a) == .wait)
        #expect(read.wroteBack(.applied(newest: F.version(5)), to: c) == .answer(F.envelope(5), repairing: []))
    }

    @Test(arguments: [
        (OperationFailure.staleRing, OperationFailure.staleRing), (.notApplied(.deadline), .notApplied(.deadline)),
        (.outcomeUnknown(.deadline), .notApplied(.deadline)),
    ])
    func aReadThatFailsHadNoEffect(_ heard: OperationFailure, _ said: OperationFailure) {
        var first = QuorumRead([F.group(0), F.group(1)])
        #expect(first.received(.failed(heard), from: b) == .fail(said))
        #expect(first.received(.record(nil), from: a) == .wait)
        var second = QuorumRead([F.group(0), F.group(1)])
        _ = second.received(.record(F.envelope(1)), from: a)
        #expect(second.received(.record(nil), from: b) == .writeBack(F.envelope(1), to: [b]))
        #expect(second.wroteBack(.failed(heard), to: b) == .fail(said))
    }

    @Test func oneOfThreeMayFail() {
        var read = QuorumRead([F.group(0, 1, 2)])
        _ = read.begin()
        #expect(read.received(.failed(.notApplied(.deadline)), from: a) == .ask([c]))
        #expect(read.received(.record(nil), from: b) == .wait)
        #expect(read.received(.failed(.staleRing), from: c) == .fail(.staleRing))
    }

    @Test(arguments: [Outcome.version(.none), .stored(.none), .applied(newest: .none)])
    func anotherQuestionsAnswerIsAFailure(_ outcome: Outcome) {
        var read = QuorumRead([F.group(0)])
        #expect(read.received(outcome, from: a) == .fail(.notApplied(.protocolViolation)))
    }
}
