// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import Testing

/// Sloppy reads with nodes behind the group.
struct StandInReadTests {
    private typealias F = QuorumFixtures
    private let a = QuorumFixtures.nodes[0]
    private let b = QuorumFixtures.nodes[1]
    private let c = QuorumFixtures.nodes[2]
    private let d = QuorumFixtures.nodes[3]
    private let e = QuorumFixtures.nodes[4]
    private let f = QuorumFixtures.nodes[5]

    private static let absent = Outcome.failed(.notApplied(.nodeUnreachable))

    private func begun(_ consistency: Consistency = .sloppy) -> QuorumRead {
        var read = QuorumRead([F.group(0, 1, 2)], consistency, mayUseStandIns: true)
        _ = read.begin()
        return read
    }

    /// One of three is away: the others are a majority, and nobody else is asked.
    @Test func membersSuffice() {
        var read = begun()
        #expect(read.received(StandInReadTests.absent, from: a) == .ask([c]))
        #expect(read.received(.record(nil), from: b) == .wait)
        #expect(read.received(.record(F.envelope(1)), from: c) == .answer(F.envelope(1), repairing: [b]))
    }

    @Test func whatAStandInKeepsIsFound() {
        var read = begun()
        _ = read.received(StandInReadTests.absent, from: b)
        #expect(read.received(StandInReadTests.absent, from: c) == .findStandIns)
        #expect(read.found([d, e, f]) == .askForHints([d, e]))
        #expect(read.received(.record(F.envelope(1)), from: a) == .wait)
        #expect(read.receivedHint(.record(F.envelope(2)), from: d) == .wait)
        // All that were asked are heard, as long as they are not very late: any may hold the newest.
        #expect(read.receivedHint(.record(nil), from: e) == .answer(F.envelope(2), repairing: [a]))
    }

    @Test func theNextOneIsAskedWhereAStandInFails() {
        var read = begun()
        for node in [b, c] { _ = read.received(StandInReadTests.absent, from: node) }
        _ = read.found([d, e, f])
        #expect(read.receivedHint(.failed(.notApplied(.recovering)), from: d) == .askForHints([f]))
        _ = read.received(.record(F.envelope(1)), from: a)
        _ = read.receivedHint(.record(nil), from: e)
        #expect(read.receivedHint(.record(nil), from: f) == .answer(F.envelope(1), repairing: []))
    }

    /// That there is no pair has to be said by a member.
    @Test func standInsWithoutHintsKnowNothing() {
        var read = begun()
        for node in [a, b, c] { _ = read.received(StandInReadTests.absent, from: node) }
        #expect(read.found([d, e]) == .askForHints([d, e]))
        #expect(read.receivedHint(.record(nil), from: d) == .wait)
        var empty = read
        #expect(empty.receivedHint(.record(nil), from: e) == .fail(.notApplied(.nodeUnreachable)))
        #expect(read.receivedHint(.record(F.envelope(2)), from: e) == .answer(F.envelope(2), repairing: []))
    }

    @Test func withNobodyBehindTheGroupItFails() {
        var read = begun()
        _ = read.received(StandInReadTests.absent, from: b)
        #expect(read.received(StandInReadTests.absent, from: c) == .findStandIns)
        #expect(read.found([]) == .fail(.notApplied(.nodeUnreachable)))
    }

    /// It will answer soon, and then rightly.
    @Test func nobodyStandsInForWhoIsRecovering() {
        var read = begun()
        _ = read.received(.failed(.notApplied(.recovering)), from: a)
        #expect(read.received(.failed(.notApplied(.recovering)), from: b) == .fail(.notApplied(.recovering)))
        var mixed = begun()
        _ = mixed.received(.failed(.notApplied(.recovering)), from: a)
        _ = mixed.received(StandInReadTests.absent, from: b)
        #expect(mixed.found([d, e]) == .askForHints([d]))
    }

    @Test func whoIsKnownToBeAwayIsNotWaitedFor() {
        var read = begun()
        #expect(read.membersAreAway([b, c]) == .findStandIns)
        #expect(read.found([d, e]) == .askForHints([d, e]))
        _ = read.receivedHint(.record(nil), from: d)
        _ = read.receivedHint(.record(nil), from: e)
        #expect(read.received(.record(F.envelope(1)), from: a) == .answer(F.envelope(1), repairing: []))
    }

    /// Members that hang, and a stand-in that does: both are given up, one after the other.
    @Test func whoIsVeryLateIsAway() {
        var read = begun()
        _ = read.received(.record(F.envelope(1)), from: a)
        #expect(read.isLate() == .ask([c]))
        #expect(read.isVeryLate() == .findStandIns)
        _ = read.found([d, e])
        #expect(read.receivedHint(.record(F.envelope(2)), from: d) == .wait)
        #expect(read.isVeryLate() == .answer(F.envelope(2), repairing: [a]))
    }

    @Test func aStrictReadHasNone() {
        var read = QuorumRead([F.group(0, 1, 2)], .strict, mayUseStandIns: true)
        _ = read.begin()
        #expect(!read.mayUseStandIns && read.membersAreAway([b, c]) == .wait)
        _ = read.received(StandInReadTests.absent, from: b)
        #expect(read.received(StandInReadTests.absent, from: c) == .fail(.notApplied(.nodeUnreachable)))
    }

    /// Random answers in random order: it ends; what it answers is the newest that was heard, of R nodes; and that
    /// there is nothing was said by a member.
    @Test(arguments: 0..<400)
    func randomAnswers(seed: UInt64) {
        var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
        func next(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        let wanted = 1 + next(3)
        let behind = Array([d, e, f].prefix(next(4)))
        var read = QuorumRead([F.group(0, 1, 2)], Consistency(.sloppy, quorum: wanted), mayUseStandIns: true)
        var waiting: [NodeID] = []
        var heard: [Envelope?] = []
        var membersHeard = 0
        var end: QuorumRead.Action?
        func take(_ action: QuorumRead.Action) {
            switch action {
            case .wait: break
            case .findStandIns: take(read.found(behind))
            case .ask(let nodes), .askForHints(let nodes): waiting += nodes
            default:
                #expect(end == nil)
                end = action
            }
        }
        take(read.begin())
        if next(3) == 0 { take(read.membersAreAway([b, c])) }
        while !waiting.isEmpty, end == nil {
            switch next(8) {
            case 0: take(read.isLate())
            case 1: take(read.isVeryLate())
            default: break
            }
            guard end == nil else { break }
            let node = waiting.remove(at: next(waiting.count))
            let isMember = [a, b, c].contains(node)
            let outcome = [
                .record(nil), .record(F.envelope(UInt64(1 + next(3)))), StandInReadTests.absent,
                .failed(.notApplied(.recovering)),
            ][next(4)]
            if case .record(let record) = outcome {
                heard.append(record)
                membersHeard += isMember ? 1 : 0
            }
            take(isMember ? read.received(outcome, from: node) : read.receivedHint(outcome, from: node))
        }
        switch end {
        case .answer(let envelope, _):
            #expect(heard.count >= wanted)
            #expect(envelope?.version == heard.compactMap { $0?.version }.max())
            #expect(envelope != nil || membersHeard > 0)
        case .fail(.notApplied): break
        default: Issue.record("ended with \(String(describing: end))")
        }
    }
}
