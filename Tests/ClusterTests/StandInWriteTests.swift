// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import Testing

/// Sloppy writes with nodes behind the group.
struct StandInWriteTests {
    private typealias F = QuorumFixtures
    private let a = QuorumFixtures.nodes[0]
    private let b = QuorumFixtures.nodes[1]
    private let c = QuorumFixtures.nodes[2]
    private let d = QuorumFixtures.nodes[3]
    private let e = QuorumFixtures.nodes[4]
    private let f = QuorumFixtures.nodes[5]

    private static let absent = Outcome.failed(.notApplied(.nodeUnreachable))
    private static let held = Outcome.applied(newest: QuorumFixtures.version(8))
    private static let overtaken = Outcome.applied(newest: QuorumFixtures.version(9))

    /// A write of version 8 that has been sent to a, b and c.
    private func sent(_ consistency: Consistency = .sloppy, above floor: Version? = nil) -> QuorumWrite {
        var write = QuorumWrite(
            [F.group(0, 1, 2)], consistency, wasSent: floor != nil, above: floor, mayUseStandIns: true)
        _ = write.begin()
        #expect(write.begin(applying: F.version(8)) == .apply(F.version(8), to: [a, b, c]))
        return write
    }

    @Test func oneStandsInForEachThatIsAway() {
        var write = sent()
        #expect(write.received(StandInWriteTests.absent, from: b) == .findStandIns)
        #expect(write.found([d, e, f]) == .hint(to: [d]))
        #expect(write.received(StandInWriteTests.absent, from: c) == .hint(to: [e]))
        #expect(write.receivedHint(StandInWriteTests.held, from: d) == .wait)
        #expect(write.received(StandInWriteTests.held, from: a) == .done(F.version(8)))
        #expect(write.isOver && write.receivedHint(StandInWriteTests.held, from: e) == .wait)
    }

    @Test func theNextOneTakesThePlaceOfAStandInThatFails() {
        var write = sent()
        _ = write.received(StandInWriteTests.absent, from: a)
        #expect(write.found([d, e]) == .hint(to: [d]))
        #expect(write.receivedHint(.failed(.notApplied(.overloaded)), from: d) == .hint(to: [e]))
        _ = write.received(StandInWriteTests.held, from: b)
        // The third member may still acknowledge.
        #expect(write.receivedHint(StandInWriteTests.absent, from: e) == .wait)
        #expect(
            write.received(StandInWriteTests.absent, from: c) == .fail(.tooFewHold(1, of: 2, .nodeUnreachable)))
    }

    /// With as many nodes as replicas nothing is other than without stand-ins.
    @Test func withNobodyBehindTheGroupItFails() {
        var write = sent()
        _ = write.received(StandInWriteTests.absent, from: a)
        #expect(write.found([]) == .wait)
        #expect(write.received(StandInWriteTests.absent, from: b) == .wait)
        #expect(write.received(StandInWriteTests.absent, from: c) == .fail(.notApplied(.nodeUnreachable)))
    }

    @Test func standInsAloneAreEnough() {
        var write = sent()
        for node in [a, b, c] { _ = write.received(StandInWriteTests.absent, from: node) }
        #expect(write.found([d, e, f]) == .hint(to: [d, e, f]))
        #expect(write.receivedHint(StandInWriteTests.held, from: f) == .wait)
        #expect(write.receivedHint(StandInWriteTests.held, from: d) == .done(F.version(8)))
    }

    /// A member that is there may hold a newer version: it is heard first.
    @Test func standInsDoNotCountBeforeEachMemberIsHeard() {
        var write = sent()
        for node in [b, c] { _ = write.received(StandInWriteTests.absent, from: node) }
        _ = write.found([d, e])
        #expect(write.receivedHint(StandInWriteTests.held, from: d) == .wait)
        #expect(write.receivedHint(StandInWriteTests.held, from: e) == .wait)
        var late = write
        #expect(late.isLate() == .done(F.version(8)))
        #expect(write.received(StandInWriteTests.overtaken, from: a) == .overtaken)
        #expect(!write.canBeStrict && write.newestSeen == F.version(9))
    }

    @Test func aNewerHintIsInTheWay() {
        var write = sent()
        for node in [b, c] { _ = write.received(StandInWriteTests.absent, from: node) }
        _ = write.found([d, e])
        _ = write.received(StandInWriteTests.held, from: a)
        #expect(write.receivedHint(StandInWriteTests.overtaken, from: d) == .overtaken)
        // Begun again, above it, in one phase: a majority would not answer.
        var again = QuorumWrite(
            [F.group(0, 1, 2)], .sloppy, wasSent: true, above: write.newestSeen, mayUseStandIns: true)
        #expect(again.isOptimistic && again.begin() == .choose(after: F.version(9)))
    }

    @Test func whereAMajorityAnswersItCanBeStrict() {
        var write = sent()
        _ = write.received(StandInWriteTests.absent, from: c)
        _ = write.found([d])
        #expect(write.received(StandInWriteTests.overtaken, from: a) == .overtaken)
        #expect(write.canBeStrict)
    }

    /// Who refuses is there; a hint would only hide that it can't take the pair.
    @Test(arguments: [
        OperationFailure.notApplied(.outOfMemory), .notApplied(.overloaded), .notApplied(.tooLarge),
        .notApplied(.notOwner), .notApplied(.recovering),
    ])
    func nobodyStandsInForWhoRefuses(_ failure: OperationFailure) {
        var write = sent()
        for node in [a, b] { #expect(write.received(.failed(failure), from: node) == .wait) }
        #expect(write.received(.failed(failure), from: c) == .fail(failure))
    }

    @Test func whoIsKnownToBeSilentIsNotWaitedFor() {
        var write = sent()
        #expect(write.membersAreAway(silent: [b, c], inTrouble: []) == .findStandIns)
        #expect(write.found([d, e, f]) == .hint(to: [d, e]))
        _ = write.received(StandInWriteTests.held, from: a)
        #expect(write.receivedHint(StandInWriteTests.held, from: e) == .done(F.version(8)))
    }

    /// One that may be slow alone gets no hint as long as the others suffice.
    @Test func whoIsInTroubleIsAwayWhereTheOthersAreTooFew() {
        var one = sent()
        #expect(one.membersAreAway(silent: [], inTrouble: [c]) == .wait)
        var two = sent()
        #expect(two.membersAreAway(silent: [b], inTrouble: [c]) == .findStandIns)
        #expect(two.found([d, e]) == .hint(to: [d, e]))
    }

    @Test func oneThatIsLateCountsAllTheSame() {
        var write = sent()
        #expect(write.isLate() == .findStandIns)
        _ = write.found([d, e, f])
        _ = write.received(StandInWriteTests.held, from: a)
        #expect(write.received(StandInWriteTests.held, from: b) == .done(F.version(8)))
    }

    @Test func aRingThatMovesOnIsNoAbsence() {
        var write = sent()
        #expect(write.received(.failed(.staleRing), from: a) == .wait)
        #expect(write.received(.failed(.staleRing), from: b) == .fail(.staleRing))
    }

    @Test func asManyAsAreWanted() {
        var write = sent(Consistency(.sloppy, quorum: 3))
        _ = write.received(StandInWriteTests.absent, from: c)
        _ = write.found([d])
        _ = write.received(StandInWriteTests.held, from: a)
        _ = write.received(StandInWriteTests.held, from: b)
        #expect(write.receivedHint(StandInWriteTests.held, from: d) == .done(F.version(8)))
    }

    /// Whatever is asked for, and also where it may use them.
    @Test(arguments: [Consistency.strict, Consistency(.strict, quorum: 2)])
    func aStrictWriteHasNone(_ consistency: Consistency) {
        var write = QuorumWrite([F.group(0, 1, 2)], consistency, mayUseStandIns: true)
        #expect(!write.mayUseStandIns)
        _ = write.begin(applying: F.version(8))
        #expect(write.received(StandInWriteTests.absent, from: a) == .wait)
        #expect(write.received(StandInWriteTests.absent, from: b) == .wait)
        #expect(write.received(StandInWriteTests.absent, from: c) == .fail(.notApplied(.nodeUnreachable)))
    }

    /// Random answers in random order: acknowledged only where W nodes hold it, with stand-ins only where nobody that
    /// was heard holds a newer one; not-applied only where nobody can hold it; and it always ends.
    @Test(arguments: 0..<400)
    func randomAnswers(seed: UInt64) {
        var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
        func next(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        let wanted = 1 + next(3)
        let behind = Array([d, e, f].prefix(next(4)))
        var write = sent(Consistency(.sloppy, quorum: wanted))
        var waiting = [a, b, c]
        var (members, hinted, newer, mayHold): (Set<NodeID>, Set<NodeID>, Set<NodeID>, Set<NodeID>) = ([], [], [], [])
        var end: QuorumWrite.Action?
        func take(_ action: QuorumWrite.Action) {
            switch action {
            case .wait: break
            case .findStandIns: take(write.found(behind))
            case .hint(to: let nodes):
                #expect(Set(nodes).isSubset(of: behind) && Set(nodes).isDisjoint(with: waiting))
                waiting += nodes
            default:
                #expect(end == nil)
                end = action
            }
        }
        if next(3) == 0 { take(write.membersAreAway(silent: [b], inTrouble: [c])) }
        while !waiting.isEmpty, end == nil {
            if next(8) == 0 { take(write.isLate()) }
            guard end == nil else { break }
            let node = waiting.remove(at: next(waiting.count))
            let isMember = [a, b, c].contains(node)
            let outcome = [
                StandInWriteTests.held, StandInWriteTests.held, StandInWriteTests.overtaken, StandInWriteTests.absent,
                .failed(.outcomeUnknown(.deadline)), .failed(.notApplied(.outOfMemory)),
            ][next(6)]
            if outcome == StandInWriteTests.held { if isMember { members.insert(node) } else { hinted.insert(node) } }
            if outcome == StandInWriteTests.overtaken { newer.insert(node) }
            if [StandInWriteTests.held, .failed(.outcomeUnknown(.deadline))].contains(outcome) { mayHold.insert(node) }
            take(
                isMember ? write.receivedAcknowledgement(outcome, from: node) : write.receivedHint(outcome, from: node))
        }
        switch end {
        case .done:
            #expect(members.count >= wanted || newer.isEmpty && members.count + hinted.count >= wanted)
        case .overtaken: #expect(!newer.isEmpty && members.count < wanted)
        case .fail(.notApplied): #expect(mayHold.isEmpty && waiting.isEmpty)
        case .fail(.tooFewHold(let count, of: wanted, _)): #expect(count == members.count + hinted.count)
        default: Issue.record("ended with \(String(describing: end))")
        }
    }
}
