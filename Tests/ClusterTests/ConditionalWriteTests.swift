// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import Testing

struct ConditionalWriteTests {
    private typealias F = QuorumFixtures
    private let a = QuorumFixtures.nodes[0]
    private let b = QuorumFixtures.nodes[1]
    private let c = QuorumFixtures.nodes[2]
    private let unreachable = Outcome.failed(.notApplied(.nodeUnreachable))

    @Test func oneOwnerReadsAndDecides() {
        var write = ConditionalWrite([F.group(0)], decider: a)
        #expect(write.begin() == .ask([a]))
        #expect(write.received(.record(F.envelope(3)), from: a) == .judge(F.envelope(3)))
        #expect(write.decide(on: F.version(4)) == .decide(over: F.version(3), at: a))
        #expect(write.receivedDecision(.applied(newest: F.version(4))) == .decided(by: a))
        #expect(write.receivedDecision(.applied(newest: F.version(4))) == .wait)
    }

    @Test func whereNothingIsHeldItIsDecidedOverNothing() {
        var write = ConditionalWrite([F.group(0)], decider: a)
        _ = write.begin()
        #expect(write.received(.record(nil), from: a) == .judge(nil))
        #expect(write.decide(on: F.version(4)) == .decide(over: .none, at: a))
        #expect(write.receivedDecision(.failed(.preconditionFailed(held: F.version(1)))) == .contended)
    }

    /// The others may hold what the decider has missed; without the decider they are not enough.
    @Test func theNewestOfAMajorityWithTheDecider() {
        var write = ConditionalWrite([F.group(0, 1, 2)], decider: a)
        #expect(write.begin() == .ask([a, b, c]))
        #expect(write.received(.record(F.envelope(5)), from: b) == .wait)
        #expect(write.received(.record(F.envelope(5)), from: c) == .wait)
        #expect(write.received(.record(F.envelope(2)), from: a) == .judge(F.envelope(5)))
        #expect(write.decide(on: F.version(6)) == .decide(over: F.version(5), at: a))
    }

    @Test func theDeciderAloneIsNoMajority() {
        var write = ConditionalWrite([F.group(0, 1, 2)], decider: a)
        _ = write.begin()
        #expect(write.received(.record(F.envelope(2)), from: a) == .wait)
        #expect(write.received(unreachable, from: b) == .wait)
        #expect(write.received(.record(nil), from: c) == .judge(F.envelope(2)))
        var alone = ConditionalWrite([F.group(0, 1, 2)], decider: a)
        _ = alone.begin()
        #expect(alone.received(.record(F.envelope(2)), from: a) == .wait)
        #expect(alone.received(unreachable, from: b) == .wait)
        #expect(alone.received(unreachable, from: c) == .fail(.notApplied(.nodeUnreachable)))
    }

    @Test(arguments: [
        OperationFailure.notApplied(.nodeUnreachable), .notApplied(.recovering), .outcomeUnknown(.deadline), .staleRing,
    ])
    func withoutTheDeciderNobodyCanSay(_ failure: OperationFailure) {
        var write = ConditionalWrite([F.group(0, 1, 2)], decider: a)
        _ = write.begin()
        #expect(write.received(.record(F.envelope(5)), from: b) == .wait)
        // (Only read so far: whatever became of that, nothing was applied.)
        #expect(write.received(.failed(failure), from: a) == .fail(failure.asNotApplied))
        #expect(write.received(.record(F.envelope(5)), from: c) == .wait)
    }

    @Test func aRefusalThatAMajorityHoldsIsAnsweredAtOnce() {
        var write = ConditionalWrite([F.group(0, 1, 2)], decider: a)
        _ = write.begin()
        _ = write.received(.record(F.envelope(5)), from: a)
        #expect(write.received(.record(F.envelope(5)), from: c) == .judge(F.envelope(5)))
        #expect(write.refuse() == .refuse)
    }

    @Test func aRefusalOfWhatIsNotThereNeedsNoHolder() {
        var write = ConditionalWrite([F.group(0, 1, 2)], decider: a)
        _ = write.begin()
        _ = write.received(.record(nil), from: b)
        #expect(write.received(.record(nil), from: a) == .judge(nil))
        #expect(write.refuse() == .refuse)
    }

    /// Or whoever is refused could hear of a pair that nobody finds afterwards.
    @Test func aRefusalIsHeldByAMajorityFirst() {
        var write = ConditionalWrite([F.group(0, 1, 2)], decider: a)
        _ = write.begin()
        _ = write.received(.record(F.envelope(2)), from: b)
        #expect(write.received(.record(F.envelope(5)), from: a) == .judge(F.envelope(5)))
        #expect(write.refuse() == .writeBack(F.envelope(5), to: [b]))
        #expect(write.wroteBack(.failed(.notApplied(.outOfMemory)), to: b) == .wait)
        // One that answers late takes it, too.
        #expect(write.received(.record(nil), from: c) == .writeBack(F.envelope(5), to: [c]))
        #expect(write.wroteBack(.applied(newest: F.version(5)), to: c) == .refuse)
    }

    @Test func aRefusalThatNoMajorityTakesIsNone() {
        var write = ConditionalWrite([F.group(0, 1, 2)], decider: a)
        _ = write.begin()
        _ = write.received(.record(F.envelope(2)), from: b)
        _ = write.received(.record(F.envelope(5)), from: a)
        #expect(write.refuse() == .writeBack(F.envelope(5), to: [b]))
        #expect(write.received(unreachable, from: c) == .wait)
        #expect(write.wroteBack(.failed(.outcomeUnknown(.deadline)), to: b) == .fail(.notApplied(.deadline)))
    }

    @Test func lateHolderCounts() {
        var write = ConditionalWrite([F.group(0, 1, 2)], decider: a)
        _ = write.begin()
        _ = write.received(.record(F.envelope(2)), from: b)
        _ = write.received(.record(F.envelope(5)), from: a)
        _ = write.refuse()
        #expect(write.received(.record(F.envelope(6)), from: c) == .refuse)
    }

    /// Sent to the decider and not answered: it may be done, so it is not sent again.
    @Test(arguments: [
        OperationFailure.notApplied(.outOfMemory), .outcomeUnknown(.nodeUnreachable), .staleRing,
        .notApplied(.notOwner),
    ])
    func theDecidersFailureIsTheWrites(_ failure: OperationFailure) {
        var write = ConditionalWrite([F.group(0)], decider: a)
        _ = write.begin()
        _ = write.received(.record(F.envelope(3)), from: a)
        _ = write.decide(on: F.version(4))
        #expect(write.receivedDecision(.failed(failure)) == .fail(failure))
    }

    @Test func anAnswerThatFitsNoQuestionIsUnknown() {
        var write = ConditionalWrite([F.group(0)], decider: a)
        _ = write.begin()
        #expect(write.received(.stored(F.version(1)), from: a) == .fail(.notApplied(.protocolViolation)))
        write = ConditionalWrite([F.group(0)], decider: a)
        _ = write.begin()
        _ = write.received(.record(nil), from: a)
        _ = write.decide(on: F.version(4))
        #expect(
            write.receivedDecision(.applied(newest: F.version(9))) == .fail(.outcomeUnknown(.protocolViolation)))
    }

    /// Both sides of a ring change that leaves the first owner in its place.
    @Test func bothSidesWithOneDecider() {
        var write = ConditionalWrite([F.group(0, 1, 2), F.group(0, 3, 1)], decider: a)
        let d = F.nodes[3]
        #expect(write.begin() == .ask([a, b, c, d]))
        #expect(write.received(.record(F.envelope(2)), from: a) == .wait)
        #expect(write.received(.record(F.envelope(2)), from: c) == .wait)
        #expect(write.received(.record(F.envelope(7)), from: d) == .judge(F.envelope(7)))
        #expect(write.refuse() == .writeBack(F.envelope(7), to: [a, c]))
        #expect(write.wroteBack(.applied(newest: F.version(7)), to: a) == .wait)
        #expect(write.wroteBack(.applied(newest: F.version(7)), to: c) == .refuse)
    }
}
