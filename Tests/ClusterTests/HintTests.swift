// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import Memcached
import NIOCore
import Synchronization
import TestSupport
import Testing

struct HintIntakeTests {
    /// Marks by hand.
    private final class Board {
        var reports: [HintIntake.Report] = []
        var answer: ((HintIntake.Amount?) -> Void)?
    }

    private static func hint(_ bytes: Int = 10) throws -> KeyValue.Operation {
        let key = try #require(Key("k"))
        return .apply(
            StoredKey(key).hint,
            Envelope(key: key, storedKey: StoredKey(key), value: ByteBuffer(repeating: 1, count: bytes)))
    }

    private func intake() -> (HintIntake, Board) {
        let (intake, board) = (HintIntake(), Board())
        intake.mark = { report, done in
            board.reports.append(report)
            board.answer = done
        }
        return (intake, board)
    }

    /// Or one might be stored that nobody ever looks for.
    @Test func nothingIsTakenBeforeTheBoardIsMarked() throws {
        let (intake, board) = intake()
        let hint = try HintIntakeTests.hint()
        var proceeded = 0
        intake.prepare { proceeded += 1 }
        intake.prepare { proceeded += 1 }
        #expect(proceeded == 0 && board.reports.count == 1)
        #expect(intake.refusal(of: hint) == .notApplied(.memcachedUnavailable))
        board.answer?(.init(count: 5, bytes: 1000))
        #expect(proceeded == 2 && intake.refusal(of: hint) == nil)
        intake.prepare { proceeded += 1 }
        #expect(proceeded == 3 && board.reports.count == 1)
    }

    @Test func whereTheBoardCannotBeMarkedNothingIsTaken() throws {
        let (intake, board) = intake()
        var proceeded = 0
        intake.prepare { proceeded += 1 }
        board.answer?(nil)
        #expect(proceeded == 1)
        #expect(intake.refusal(of: try HintIntakeTests.hint()) == .notApplied(.memcachedUnavailable))
        intake.prepare {}
        #expect(board.reports.count == 2)
    }

    @Test func noMoreIsTakenThanThereIsRoomFor() throws {
        let (intake, board) = intake()
        let hint = try HintIntakeTests.hint()
        intake.prepare {}
        board.answer?(.init(count: 2, bytes: 10 * hint.weight))
        #expect(intake.refusal(of: hint) == nil && intake.refusal(of: hint) == nil)
        #expect(intake.refusal(of: hint) == .notApplied(.overloaded))
        intake.tell()
        var report = HintIntake.Report()
        report.taken = .init(count: 2, bytes: 2 * hint.weight)
        report.refused = 1
        #expect(board.reports.last == report)
        // What could not be told is told the next time.
        board.answer?(nil)
        intake.tell()
        #expect(board.reports.count == 3 && board.reports.last == report)
        board.answer?(.init(count: 9, bytes: hint.weight - 1))
        #expect(intake.refusal(of: hint) == .notApplied(.overloaded))
        #expect(intake.refusal(of: try HintIntakeTests.hint(9)) == nil)
    }

    /// Passes go on until one has begun after the last hint that a mark covers.
    @Test func theBoardForgetsNoHint() {
        var entry = HintBoard.Entry()
        #expect(entry.mayHaveHints)
        var report = HintIntake.Report()
        report.taken = .init(count: 3, bytes: 30)
        entry.marked(report, at: 10_000)
        #expect(entry.waiting.count == 3 && entry.room.count == Limits.hints - 3)
        let before = entry
        report.taken = .init(count: 1, bytes: 10)
        entry.marked(report, at: 10_500)
        entry.passed(HintCount(left: .init(), delivered: 3), since: before, at: 10_200)
        #expect(entry.waiting.count == 1 && entry.delivered == 3 && entry.mayHaveHints)
        entry.passed(HintCount(), since: entry, at: 10_500 + HintBoard.settleMilliseconds - 1)
        #expect(entry.waiting.count == 0 && entry.mayHaveHints)
        entry.passed(HintCount(), since: entry, at: 10_500 + HintBoard.settleMilliseconds)
        #expect(!entry.mayHaveHints)
        entry.marked(HintIntake.Report(), at: 20_000)
        #expect(entry.mayHaveHints)
    }

    @Test func silenceIsNoNewsForLong() throws {
        let node = try #require(NodeID("10.0.0.1:5000"))
        var news = HeartbeatNews()
        let now = NIODeadline.now()
        #expect(!news.isSilent(node))
        news.heard(Heartbeat(silent: [node]), until: now + .seconds(3))
        #expect(news.isSilent(node, at: now) && !news.isSilent(node, at: now + .seconds(3)))
        news.heard(Heartbeat(), until: now + .seconds(3))
        #expect(!news.isSilent(node, at: now))
    }
}

/// With a real memcached, one after the other.
@Suite(.serialized, .timeLimit(.minutes(3)))
struct HintPassTests {
    /// The members of the group, as this host meets them.
    private final class Members: Sendable {
        struct State {
            var held: [NodeID: [StoredKey: Envelope]] = [:]
            var away: Set<NodeID> = []
            var refusing: Set<NodeID> = []
            var behind: Set<NodeID> = []
            var batches = 0
        }
        let state = Mutex(State())

        func send(_ node: NodeID, _ operations: [KeyValue.Operation]) throws -> [Outcome] {
            try state.withLock { state in
                state.batches += 1
                if state.away.contains(node) { throw PeerCaller.Failure.unreachable(node, reason: "away") }
                if state.behind.contains(node) { throw PeerCaller.Failure.staleRing(node, nil) }
                if state.refusing.contains(node) { return operations.map { _ in .failed(.notApplied(.outOfMemory)) } }
                return operations.map { operation in
                    guard case .apply(let key, let envelope) = operation, !key.isHint else {
                        return .failed(.notApplied(.protocolViolation))
                    }
                    let held = state.held[node]?[key]?.version ?? .none
                    if envelope.version > held { state.held[node, default: [:]][key] = envelope }
                    return .applied(newest: max(held, envelope.version))
                }
            }
        }
    }

    private static let nodes = (1...3).compactMap { NodeID("10.0.0.\($0):5000") }

    private static func document() throws -> RingDocument {
        let seats = try nodes.enumerated().map {
            Ring.Seat(position: try #require(Position(3000 * ($0.offset + 1))), node: $0.element)
        }
        return RingDocument(epoch: SnapshotRig.epoch, ring: try #require(Ring(seats: seats)), replicas: 3)
    }

    private func pass(
        _ rig: SnapshotRig, _ members: Members, silent: Set<NodeID> = [], failpoints: String? = nil,
        scanKeys: Int = 1000
    ) async throws -> HintPass {
        HintPass(
            HintPass.Dependencies(
                node: rig.node, pairs: rig.pairs(scanKeys: scanKeys),
                bulkDelete: BulkDelete(.unixSocket(path: rig.memcached.path)), clock: rig.clock,
                failpoints: Failpoints(isAllowed: true, text: failpoints, file: nil),
                send: { node, operations, _ in try members.send(node, operations) }),
            RoutingTable(try HintPassTests.document()), under: try #require(try await rig.pairs().stamp()),
            silent: silent)
    }

    private func hints(_ rig: SnapshotRig, _ count: Int) async throws -> [SnapshotRecord] {
        let records = rig.samples(count)
        try await rig.store(records.map { SnapshotRecord(key: $0.key.hint, envelope: $0.envelope) })
        return records
    }

    private func left(_ rig: SnapshotRig, _ records: [SnapshotRecord]) async throws -> Int {
        let hints = records.map { SnapshotRecord(key: $0.key.hint, envelope: $0.envelope) }
        return try await rig.held(hints).count { $0 != nil }
    }

    @Test func allMembersGetThemAndTheyAreGone() async throws {
        try await SnapshotRig.run { rig in
            let records = try await hints(rig, 700)
            // A pair of this host's own under one of the keys stays.
            try await rig.store([records[3]])
            let members = Members()
            var pass = try await pass(rig, members, scanKeys: 200)
            try await pass.run()
            #expect(pass.count.delivered == 700 && pass.count.left.count == 0 && pass.count.dropped == 0)
            #expect(try await left(rig, records) == 0)
            #expect(try await rig.held([records[3]]) == [records[3].envelope])
            let wanted = Dictionary(records.map { ($0.key, $0.envelope) }) { first, _ in first }
            members.state.withLock { state in
                for node in HintPassTests.nodes { #expect(state.held[node] == wanted) }
            }
        }
    }

    enum Lack: CaseIterable { case isAway, hasNoRoom, standsOnAnotherRing }

    /// One that is away, has no room, or has not heard of the ring yet, keeps all: until it has it too, the hint may be
    /// the copy that counts.
    @Test(arguments: Lack.allCases)
    func whatOneLacksIsKept(lack: Lack) async throws {
        try await SnapshotRig.run { rig in
            let records = try await hints(rig, 300)
            let members = Members()
            members.state.withLock { state in
                let node: Set = [HintPassTests.nodes[1]]
                switch lack {
                case .isAway: state.away = node
                case .hasNoRoom: state.refusing = node
                case .standsOnAnotherRing: state.behind = node
                }
            }
            var first = try await pass(rig, members)
            try await first.run()
            #expect(first.count.delivered == 0 && first.count.left.count == 300 && first.count.left.bytes > 0)
            #expect(try await left(rig, records) == 300)
            members.state.withLock { state in
                #expect(state.held[HintPassTests.nodes[2]]?.count == 300)
                (state.away, state.refusing, state.behind) = ([], [], [])
            }
            var second = try await pass(rig, members)
            try await second.run()
            #expect(second.count.delivered == 300 && second.count.left.count == 0)
            #expect(members.state.withLock { $0.held[HintPassTests.nodes[1]]?.count } == 300)
        }
    }

    @Test func whoIsSilentIsNotAsked() async throws {
        try await SnapshotRig.run { rig in
            _ = try await hints(rig, 20)
            let members = Members()
            var pass = try await pass(rig, members, silent: Set(HintPassTests.nodes))
            try await pass.run()
            #expect(pass.count.left.count == 20 && members.state.withLock { $0.batches } == 0)
        }
    }

    /// Given, and not deleted: it is given again.
    @Test func oneThatIsCutOffIsDoneAgain() async throws {
        try await SnapshotRig.run { rig in
            let records = try await hints(rig, 50)
            let members = Members()
            var first = try await pass(rig, members, failpoints: "hints.batch=error")
            await #expect(throws: Failpoints.Injected.self) { try await first.run() }
            #expect(try await left(rig, records) == 50 && first.count.delivered == 0)
            var second = try await pass(rig, members)
            try await second.run()
            #expect(second.count.delivered == 50)
        }
    }

    @Test func aMemberThatHoldsANewerOneKeepsIt() async throws {
        try await SnapshotRig.run { rig in
            let records = try await hints(rig, 1)
            let members = Members()
            var newer = records[0].envelope
            newer.stamp(rig.clock.tick())
            let key = records[0].key
            members.state.withLock { [newer] in $0.held[HintPassTests.nodes[0]] = [key: newer] }
            var pass = try await pass(rig, members)
            try await pass.run()
            #expect(pass.count.delivered == 1)
            #expect(members.state.withLock { $0.held[HintPassTests.nodes[0]]?[key] } == newer)
        }
    }

    /// Whatever deleted its pair since is forgotten by now.
    @Test func oneThatIsTooOldIsDropped() async throws {
        try await SnapshotRig.run { rig in
            let key = try #require(Key("old"))
            let now = rig.clock.wallMilliseconds
            func hint(_ name: String, seconds: Int) throws -> SnapshotRecord {
                let key = try #require(Key(Array(name.utf8)))
                let time = (now - UInt64(seconds) * 1000) * 1000 << 12
                return SnapshotRecord(
                    key: StoredKey(key).hint,
                    envelope: Envelope(
                        key: key, storedKey: StoredKey(key), value: ByteBuffer(string: name),
                        version: Version(time: time, writer: 1)))
            }
            try await rig.store([
                hint("old", seconds: Limits.hintSeconds), hint("young", seconds: Limits.hintSeconds - 60),
            ])
            let members = Members()
            var pass = try await pass(rig, members)
            try await pass.run()
            #expect(pass.count.dropped == 1 && pass.count.delivered == 1 && pass.count.left.count == 0)
            #expect(members.state.withLock { $0.held[HintPassTests.nodes[0]]?[StoredKey(key)] } == nil)
        }
    }

    /// Another life of this memory: nothing that was read before says anything of it.
    @Test func aMemoryThatIsLostEndsThePass() async throws {
        try await SnapshotRig.run { rig in
            _ = try await hints(rig, 10)
            let members = Members()
            var pass = try await pass(rig, members)
            _ = try await rig.restartEmpty()
            let records = try await hints(rig, 10)
            await #expect(throws: HostPairs.Failure.self) { try await pass.run() }
            #expect(try await left(rig, records) == 10)
        }
    }
}
