// SPDX-License-Identifier: Apache-2.0

import HashRing
import Testing

/// Promises, announcements and installed rings at one host.
struct HostRingRecordTests {
    private static let ring = RingTests.ring(seed: 1, seats: 2, nodes: 2)
    private static let other = RingTests.ring(seed: 2, seats: 3, nodes: 3)

    private static func document(_ epoch: UInt64, _ ring: Ring = ring) -> RingDocument {
        RingDocument(epoch: Epoch(epoch), ring: ring)
    }

    private static func record(promised holder: String?, epoch: UInt64 = 5) -> HostRingRecord {
        var record = HostRingRecord(document: document(epoch))
        if let holder { _ = record.promise(to: holder, nowMilliseconds: 0, lifeMilliseconds: 100) }
        return record
    }

    /// Promised to "a" until 100: who gets it when.
    @Test(
        arguments: [
            ("a", 0, HostRingRecord.PromiseAnswer.granted), ("a", 99, .granted), ("a", 1000, .granted),
            ("b", 0, .heldBy("a")),
            ("b", 99, .heldBy("a")), ("b", 100, .granted), ("b", 1000, .granted),
        ] as [(String, Int64, HostRingRecord.PromiseAnswer)])
    func promises(_ holder: String, _ now: Int64, _ answer: HostRingRecord.PromiseAnswer) {
        var record = HostRingRecordTests.record(promised: "a")
        let before = record
        #expect(record.promise(to: holder, nowMilliseconds: now, lifeMilliseconds: 50) == answer)
        if answer == .granted {
            #expect(record.promise?.holder == holder && record.promise?.expiresAtMilliseconds == now + 50)
        } else {
            #expect(record == before)
        }
    }

    @Test func aPromiseIsRenewedByItsHolderOnly() {
        var record = HostRingRecordTests.record(promised: "a")
        #expect(record.renew("b", nowMilliseconds: 500, lifeMilliseconds: 50) == .heldBy("a"))
        #expect(record.renew("a", nowMilliseconds: 500, lifeMilliseconds: 50) == .granted)
        #expect(record.promise?.expiresAtMilliseconds == 550)
        record.release("b")
        #expect(record.promise?.holder == "a")
        record.release("a")
        #expect(record.promise == nil)
        #expect(record.renew("a", nowMilliseconds: 501, lifeMilliseconds: 50) == .heldBy("nobody"))
    }

    @Test(
        arguments: [
            (nil, 6, HostRingRecord.AnnouncementAnswer.notPromised), ("a", 6, .accepted), ("a", 9, .accepted),
            ("b", 6, .notPromised),
            ("a", 5, .overtaken), ("a", 4, .overtaken), (nil, 5, .overtaken),
        ] as [(String?, UInt64, HostRingRecord.AnnouncementAnswer)])
    func announcements(_ promised: String?, _ epoch: UInt64, _ answer: HostRingRecord.AnnouncementAnswer) {
        var record = HostRingRecordTests.record(promised: promised)
        let before = record
        let next = HostRingRecordTests.document(epoch, HostRingRecordTests.other)
        #expect(record.announce(next, by: "a") == answer)
        #expect(answer == .accepted ? record.document == next : record == before)
    }

    @Test func theSameDocumentIsAcceptedAgain() {
        var record = HostRingRecordTests.record(promised: nil)
        #expect(record.announce(HostRingRecordTests.document(5), by: "anybody") == .accepted)
    }

    @Test(arguments: [(4, false), (5, false), (6, true), (100, true)] as [(UInt64, Bool)])
    func learning(_ epoch: UInt64, _ isNews: Bool) {
        var record = HostRingRecordTests.record(promised: "a")
        let next = HostRingRecordTests.document(epoch, HostRingRecordTests.other)
        #expect(record.learn(next) == isNews)
        #expect((record.document == next) == isNews && record.promise?.holder == "a")
    }

    @Test func installing() {
        var record = HostRingRecord()
        func install(_ ring: Ring, at now: Int64 = 1000) -> HostRingRecord.InstallAnswer {
            record.install(ring, replicas: 1, standbys: [], nowMilliseconds: now)
        }
        #expect(record.epoch == .none)
        #expect(install(HostRingRecordTests.ring) == .installed)
        #expect(record.epoch == Epoch(1))
        #expect(install(HostRingRecordTests.ring) == .unchanged)
        #expect(install(HostRingRecordTests.other) == .installed)
        #expect(record.epoch == Epoch(2))
        _ = record.promise(to: "a", nowMilliseconds: 1000, lifeMilliseconds: 100)
        #expect(install(HostRingRecordTests.ring, at: 1099) == .busy)
        #expect(install(HostRingRecordTests.ring, at: 1100) == .installed)
        let transition = RingTransition(
            id: "t", change: .remove(node: HostRingRecordTests.ring.nodes[0]), from: HostRingRecordTests.ring,
            to: HostRingRecordTests.other, step: .copying)
        _ = record.learn(RingDocument(epoch: Epoch(9), ring: HostRingRecordTests.ring, transition: transition))
        #expect(install(HostRingRecordTests.other, at: 5000) == .busy)
        #expect(record.epoch == Epoch(9))
    }

    @Test func anotherClustersDocumentsAreNotTaken() throws {
        let node = try #require(NodeID("10.0.0.1:1"))
        let position = try #require(Position(5))
        let ring = try #require(Ring(seats: [.init(position: position, node: node)]))
        let ours = RingDocument(epoch: Epoch(3), cluster: "a", ring: ring)
        let theirs = RingDocument(epoch: Epoch(9), cluster: "b", ring: ring)
        var record = HostRingRecord(document: ours)
        _ = record.promise(to: "driver", nowMilliseconds: 0, lifeMilliseconds: 1000)
        #expect(record.isForeign(theirs))
        let isNews = record.learn(theirs)
        let answer = record.announce(theirs, by: "driver")
        #expect(!isNews && answer == .overtaken && record.document == ours)
        var empty = HostRingRecord()
        let isFirst = empty.learn(theirs)
        #expect(isFirst && !empty.isForeign(theirs))
    }
}
