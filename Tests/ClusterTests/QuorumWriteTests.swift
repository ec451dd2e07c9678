// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import Testing

struct QuorumWriteTests {
    private typealias F = QuorumFixtures
    private let a = QuorumFixtures.nodes[0]
    private let b = QuorumFixtures.nodes[1]
    private let c = QuorumFixtures.nodes[2]

    @Test func bothPhases() {
        var write = QuorumWrite([F.group(0), F.group(1)])
        #expect(write.begin() == .askVersions([a, b]))
        #expect(write.received(.version(F.version(3)), from: a) == .wait)
        #expect(write.received(.version(F.version(7)), from: b) == .choose(after: F.version(7)))
        #expect(write.received(.version(F.version(9)), from: b) == .wait)
        #expect(write.begin(applying: F.version(8)) == .apply(F.version(8), to: [a, b]))
        #expect(write.received(.applied(newest: F.version(8)), from: b) == .wait)
        // Who holds a newer one acknowledges as well.
        #expect(write.received(.applied(newest: F.version(20)), from: a) == .done(F.version(8)))
        #expect(write.received(.applied(newest: F.version(8)), from: a) == .wait)
    }

    @Test func eachSideNeedsItsQuorum() {
        var write = QuorumWrite([F.group(0, 1, 2), F.group(3, 4, 5)])
        _ = write.begin(applying: F.version(8))
        for node in F.nodes[0...2] { #expect(write.received(.applied(newest: F.version(8)), from: node) == .wait) }
        #expect(write.received(.applied(newest: F.version(8)), from: F.nodes[3]) == .wait)
        #expect(write.received(.failed(.notApplied(.deadline)), from: F.nodes[4]) == .wait)
        #expect(write.received(.applied(newest: F.version(8)), from: F.nodes[5]) == .done(F.version(8)))
    }

    /// What the first phase fails with has had no effect, unless the version was sent in an earlier run.
    @Test(arguments: [
        (OperationFailure.outcomeUnknown(.deadline), false, OperationFailure.notApplied(.deadline)),
        (.notApplied(.outOfMemory), false, .notApplied(.outOfMemory)), (.staleRing, false, .staleRing),
        (.notApplied(.deadline), true, .tooFewHold(0, of: 1, .deadline)), (.staleRing, true, .staleRing),
    ])
    func firstPhaseFails(_ heard: OperationFailure, _ wasSent: Bool, _ said: OperationFailure) {
        var write = QuorumWrite([F.group(0), F.group(1)], wasSent: wasSent)
        #expect(write.received(.failed(heard), from: a) == .fail(said))
    }

    @Test func refusedByAllIsNotApplied() {
        var write = QuorumWrite([F.group(0, 1, 2)])
        _ = write.begin(applying: F.version(8))
        #expect(write.received(.failed(.notApplied(.outOfMemory)), from: a) == .wait)
        // The third may still store it.
        #expect(write.received(.failed(.notApplied(.outOfMemory)), from: b) == .wait)
        var stored = write
        #expect(
            stored.received(.applied(newest: F.version(8)), from: c) == .fail(.tooFewHold(1, of: 2, .outOfMemory)))
        #expect(write.received(.failed(.notApplied(.outOfMemory)), from: c) == .fail(.notApplied(.outOfMemory)))
        var both = QuorumWrite([F.group(0)])
        _ = both.begin(applying: F.version(8))
        #expect(both.received(.failed(.notApplied(.tooLarge)), from: a) == .fail(.notApplied(.tooLarge)))
    }

    @Test(arguments: [
        (
            Outcome.applied(newest: F.version(8)), Outcome.failed(.notApplied(.outOfMemory)),
            OperationFailure.tooFewHold(1, of: 1, .outOfMemory)
        ),
        (.failed(.outcomeUnknown(.deadline)), .failed(.notApplied(.outOfMemory)), .tooFewHold(0, of: 1, .deadline)),
        (.applied(newest: F.version(8)), .failed(.staleRing), .staleRing),
    ])
    func secondPhaseFails(_ first: Outcome, _ second: Outcome, _ said: OperationFailure) {
        var write = QuorumWrite([F.group(0), F.group(1)])
        _ = write.begin(applying: F.version(8))
        #expect(write.received(first, from: a) == .wait)
        #expect(write.received(second, from: b) == .fail(said))
    }

    @Test func aSloppyWriteTakesOnePhase() {
        var write = QuorumWrite([F.group(0, 1, 2)], .sloppy)
        #expect(write.begin() == .choose(after: .none))
        #expect(write.begin(applying: F.version(8)) == .apply(F.version(8), to: [a, b, c]))
        #expect(write.received(.applied(newest: F.version(8)), from: a) == .wait)
        // One that holds a newer one does not count; another one does.
        #expect(write.received(.applied(newest: F.version(9)), from: b) == .wait)
        #expect(write.received(.applied(newest: F.version(8)), from: c) == .done(F.version(8)))
    }

    /// Acknowledged by two of three with a clock that is behind, it would be lost.
    @Test func aSloppyWriteThatMeetsNewerOnesIsOvertaken() {
        var write = QuorumWrite([F.group(0, 1, 2)], .sloppy)
        _ = write.begin()
        _ = write.begin(applying: F.version(8))
        #expect(write.received(.applied(newest: F.version(9)), from: a) == .wait)
        #expect(write.received(.applied(newest: F.version(9)), from: b) == .overtaken)
        #expect(write.received(.applied(newest: F.version(8)), from: c) == .wait)
        var again = QuorumWrite([F.group(0, 1, 2)], .sloppy, wasSent: true)
        #expect(again.begin() == .askVersions([a, b, c]))
    }

    @Test func aWriteSaysHowManyHoldIt() {
        var write = QuorumWrite([F.group(0, 1, 2)], Consistency(.sloppy, quorum: 3))
        _ = write.begin()
        _ = write.begin(applying: F.version(8))
        _ = write.received(.applied(newest: F.version(8)), from: a)
        // The third one's answer is waited for: it counts.
        #expect(write.received(.failed(.notApplied(.nodeUnreachable)), from: b) == .wait)
        #expect(
            write.received(.applied(newest: F.version(8)), from: c) == .fail(.tooFewHold(2, of: 3, .nodeUnreachable)))
        var impossible = QuorumWrite([F.group(0, 1)], Consistency(.sloppy, quorum: 3))
        #expect(impossible.begin() == .fail(.notApplied(.tooFewReplicas)))
    }

    /// What moves is written in two phases, whatever was asked for.
    @Test func whatMovesIsWrittenStrictly() {
        var write = QuorumWrite([F.group(0), F.group(1)], .sloppy)
        #expect(write.begin() == .askVersions([a, b]))
    }

    /// The third one's version comes when the second phase has begun: it is no answer to that.
    @Test(arguments: [Outcome.version(.none), .failed(.notApplied(.deadline))])
    func aLateVersionIsNoAcknowledgement(_ late: Outcome) {
        var write = QuorumWrite([F.group(0, 1, 2)])
        _ = write.begin()
        _ = write.receivedVersion(.version(.none), from: a)
        #expect(write.receivedVersion(.version(.none), from: b) == .choose(after: .none))
        _ = write.begin(applying: F.version(8))
        #expect(write.receivedVersion(late, from: c) == .wait)
        #expect(write.receivedAcknowledgement(.failed(.notApplied(.outOfMemory)), from: a) == .wait)
        #expect(write.receivedAcknowledgement(.applied(newest: F.version(8)), from: b) == .wait)
        #expect(write.receivedAcknowledgement(.applied(newest: F.version(8)), from: c) == .done(F.version(8)))
    }

    /// Begun again under a newer ring: the same version, and a refusal by all is no proof that nobody holds it.
    @Test func beginsAgainWithTheSameVersion() {
        var write = QuorumWrite([F.group(1), F.group(2)], wasSent: true)
        #expect(write.begin(applying: F.version(8)) == .apply(F.version(8), to: [b, c]))
        #expect(write.received(.failed(.notApplied(.outOfMemory)), from: b) == .wait)
        #expect(
            write.received(.failed(.notApplied(.outOfMemory)), from: c) == .fail(.tooFewHold(0, of: 1, .outOfMemory)))
    }

    @Test(arguments: [Outcome.record(nil), .stored(.none), .version(.none)])
    func anotherQuestionsAnswerLeavesItUnknown(_ outcome: Outcome) {
        var write = QuorumWrite([F.group(0)])
        _ = write.begin(applying: F.version(8))
        #expect(write.received(outcome, from: a) == .fail(.tooFewHold(0, of: 1, .protocolViolation)))
    }

    /// Random answers in random order: acknowledged only with a quorum of every group, refused only where none
    /// acknowledged.
    @Test(arguments: 0..<200)
    func randomAnswers(seed: UInt64) {
        var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
        func next(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        let groups = [
            [F.group(0)], [F.group(0, 1, 2)], [F.group(0), F.group(1)], [F.group(0, 1, 2), F.group(1, 2, 3)],
        ][next(4)]
        var write = QuorumWrite(groups)
        guard case .apply(let version, to: var waiting) = write.begin(applying: F.version(8)) else { return }
        var acknowledged: Set<NodeID> = []
        var mayHold: Set<NodeID> = []
        var end: QuorumWrite.Action?
        while !waiting.isEmpty {
            let node = waiting.remove(at: next(waiting.count))
            let outcome: Outcome = [
                .applied(newest: version), .applied(newest: version), .failed(.notApplied(.overloaded)),
                .failed(.outcomeUnknown(.nodeUnreachable)),
            ][next(4)]
            if case .applied = outcome { acknowledged.insert(node) }
            if outcome != .failed(.notApplied(.overloaded)) { mayHold.insert(node) }
            let action = write.received(outcome, from: node)
            if end != nil { #expect(action == .wait) } else if action != .wait { end = action }
            if end == action {
                let isHeld = groups.allSatisfy { group in
                    group.members.count { acknowledged.contains($0) } >= group.quorum
                }
                #expect((action == .done(version)) == isHeld)
                if case .fail(.notApplied) = action { #expect(mayHold.isEmpty && waiting.isEmpty) }
            }
        }
        #expect(end != nil)
    }
}
