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
        #expect(write.begin() == .askVersions([a, b]) && !write.wasSent)
        #expect(write.received(.version(F.version(3)), from: a) == .wait)
        #expect(write.received(.version(F.version(7)), from: b) == .choose(after: F.version(7)))
        #expect(write.received(.version(F.version(9)), from: b) == .wait)
        #expect(write.begin(applying: F.version(8)) == .apply(F.version(8), to: [a, b]) && write.wasSent)
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
        (.notApplied(.deadline), true, .outcomeUnknown(.deadline)), (.staleRing, true, .staleRing),
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
        var early = write
        #expect(early.received(.failed(.notApplied(.outOfMemory)), from: b) == .fail(.outcomeUnknown(.outOfMemory)))
        var both = QuorumWrite([F.group(0)])
        _ = both.begin(applying: F.version(8))
        #expect(both.received(.failed(.notApplied(.tooLarge)), from: a) == .fail(.notApplied(.tooLarge)))
    }

    @Test(arguments: [
        (
            Outcome.applied(newest: F.version(8)), Outcome.failed(.notApplied(.outOfMemory)),
            OperationFailure.outcomeUnknown(.outOfMemory)
        ),
        (.failed(.outcomeUnknown(.deadline)), .failed(.notApplied(.outOfMemory)), .outcomeUnknown(.deadline)),
        (.applied(newest: F.version(8)), .failed(.staleRing), .staleRing),
    ])
    func secondPhaseFails(_ first: Outcome, _ second: Outcome, _ said: OperationFailure) {
        var write = QuorumWrite([F.group(0), F.group(1)])
        _ = write.begin(applying: F.version(8))
        let action = write.received(first, from: a)
        if case .failed = first {
            #expect(action == .fail(said))
        } else {
            #expect(action == .wait)
            #expect(write.received(second, from: b) == .fail(said))
        }
        #expect(write.wasSent)
    }

    /// Begun again under a newer ring: the same version, and a refusal by all is no proof that nobody holds it.
    @Test func beginsAgainWithTheSameVersion() {
        var write = QuorumWrite([F.group(1), F.group(2)], wasSent: true)
        #expect(write.begin(applying: F.version(8)) == .apply(F.version(8), to: [b, c]))
        #expect(write.received(.failed(.notApplied(.outOfMemory)), from: b) == .fail(.outcomeUnknown(.outOfMemory)))
    }

    @Test(arguments: [Outcome.record(nil), .stored(.none), .version(.none)])
    func anotherQuestionsAnswerLeavesItUnknown(_ outcome: Outcome) {
        var write = QuorumWrite([F.group(0)])
        _ = write.begin(applying: F.version(8))
        #expect(write.received(outcome, from: a) == .fail(.outcomeUnknown(.protocolViolation)))
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
