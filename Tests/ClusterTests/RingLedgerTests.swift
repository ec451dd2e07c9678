// SPDX-License-Identifier: Apache-2.0

import Cluster
import Etcd
import FoundationEssentials
import HashRing
import TestSupport
import Testing

/// Who drives, and which document is the newest, as etcd has it.
struct RingLedgerTests {
    private static let time = Duration.seconds(1)
    private static let nodes = QuorumFixtures.nodes

    /// - Parameter mark: tells two documents of one epoch from each other.
    private static func document(_ epoch: UInt64, mark: Int = 1, nodes: [NodeID] = nodes) -> RingDocument {
        let seats = nodes.prefix(2).enumerated().compactMap { index, node in
            Position(1000 * (index + mark)).map { Ring.Seat(position: $0, node: node) }
        }
        guard let ring = Ring(seats: seats) else { preconditionFailure("no two at one position") }
        return RingDocument(epoch: Epoch(epoch), ring: ring)
    }

    private let etcd = FakeEtcd()
    private var ledger: RingLedger { RingLedger(etcd: etcd, prefix: "/test") }

    private func acquire(_ holder: String) async throws -> RingLedger.Entry {
        guard case .granted(let entry) = try await ledger.acquire(holder, within: RingLedgerTests.time) else {
            throw EtcdError.refused("held")
        }
        return entry
    }

    private func record(
        _ document: RingDocument, by holder: String, on entry: RingLedger.Entry
    ) async throws -> RingLedger.Entry? {
        switch try await ledger.record(document, by: holder, on: entry, within: RingLedgerTests.time) {
        case .recorded(let entry): entry
        case .overtaken: nil
        }
    }

    // MARK: One driver

    @Test func oneDrivesUntilItLetsGo() async throws {
        let entry = try await acquire("a")
        #expect(entry.document == nil && entry.revision == 0)
        #expect(try await ledger.acquire("b", within: RingLedgerTests.time) == .heldBy("a"))
        await ledger.release(entry)
        #expect(try await acquire("b").document == nil)
    }

    @Test func oneThatLetItsLeaseRunOutRecordsNothing() async throws {
        let first = try await acquire("a")
        await etcd.expire()
        #expect(try await !ledger.renew(first, within: RingLedgerTests.time))
        let second = try await acquire("b")
        #expect(try await record(RingLedgerTests.document(1), by: "a", on: first) == nil)
        #expect(try await record(RingLedgerTests.document(1, mark: 2), by: "b", on: second) != nil)
        #expect(try await ledger.read(within: RingLedgerTests.time).document == RingLedgerTests.document(1, mark: 2))
    }

    @Test("what was done though the answer was lost is done once")
    func lostAnswers() async throws {
        // (The look comes first.)
        await etcd.inject([.answerLost, nil])
        await #expect(throws: EtcdError.self) { try await ledger.acquire("a", within: RingLedgerTests.time) }
        // Its lease was given back.
        let entry = try await acquire("a")
        await etcd.inject([.answerLost])
        await #expect(throws: EtcdError.self) { try await record(RingLedgerTests.document(1), by: "a", on: entry) }
        // The same one again, and the one after it, on what was known before.
        let known = try #require(try await record(RingLedgerTests.document(1), by: "a", on: entry))
        #expect(known.document == RingLedgerTests.document(1))
        #expect(try await record(RingLedgerTests.document(2), by: "a", on: entry) != nil)
        #expect(await etcd.history[ledger.ringKey]?.count == 2)
    }

    @Test func aRecordThatComesLateIsNone() async throws {
        let first = try await acquire("a")
        await etcd.inject([.late])
        await #expect(throws: EtcdError.self) { try await record(RingLedgerTests.document(1), by: "a", on: first) }
        await ledger.release(first)
        let second = try await acquire("b")
        #expect(try await record(RingLedgerTests.document(1, mark: 2), by: "b", on: second) != nil)
        await etcd.deliver()
        #expect(await etcd.history[ledger.ringKey]?.count == 1)
    }

    @Test func whatIsNoDocumentIsNotTakenForNone() async throws {
        await etcd.set(ledger.ringKey, Data("{}".utf8))
        await #expect(throws: EtcdError.self) { try await ledger.read(within: RingLedgerTests.time) }
        await #expect(throws: EtcdError.self) { try await ledger.acquire("a", within: RingLedgerTests.time) }
        await etcd.set(ledger.ringKey, nil)
        // Nobody was left as driver.
        _ = try await acquire("b")
    }

    // MARK: Many drivers

    private struct Driver {
        var holder: String
        var entry: RingLedger.Entry
        var next: RingDocument
    }

    /// Three drivers, operators that install, leases that run out, requests that are lost, and such as come late: what
    /// was ever the newest document is one chain, and whoever was told that its document is recorded finds it there.
    @Test("drivers at odds make one history", arguments: 0..<60)
    func oneHistory(_ seed: UInt64) async throws {
        var random = SeededGenerator(seed: seed)
        var drivers: [Driver?] = [nil, nil, nil]
        var recorded: [Epoch: RingDocument] = [:]
        var mark = 0
        for step in 0..<120 {
            let roll = Int.random(in: 0..<20, using: &random)
            if roll == 0 { await etcd.expire() }
            if roll == 1 { await etcd.deliver() }
            let faults = (0..<3).map { _ in
                Int.random(in: 0..<6, using: &random) == 0 ? FakeEtcd.Fault.allCases.randomElement(using: &random) : nil
            }
            await etcd.inject(faults)
            let index = Int.random(in: 0..<3, using: &random)
            mark = mark % 7 + 1
            guard let driver = drivers[index] else {
                if roll == 2, let page = try? await ledger.read(within: RingLedgerTests.time) {
                    let next = RingLedgerTests.document((page.document?.epoch.value ?? 0) + 1, mark: mark)
                    if (try? await ledger.install(next, on: page, within: RingLedgerTests.time)) == true {
                        #expect(recorded.updateValue(next, forKey: next.epoch) ?? next == next)
                    }
                    continue
                }
                let holder = "driver \(step)"
                guard case .granted(let entry) = try? await ledger.acquire(holder, within: RingLedgerTests.time) else {
                    continue
                }
                let epoch = (entry.document?.epoch.value ?? 0) + 1
                drivers[index] = Driver(
                    holder: holder, entry: entry, next: RingLedgerTests.document(epoch, mark: mark))
                continue
            }
            if roll == 3 {
                await ledger.release(driver.entry)
                drivers[index] = nil
                continue
            }
            do {
                guard let entry = try await record(driver.next, by: driver.holder, on: driver.entry) else {
                    drivers[index] = nil
                    continue
                }
                let before = recorded.updateValue(driver.next, forKey: driver.next.epoch)
                #expect(before == nil || before == driver.next, "two documents of epoch \(driver.next.epoch)")
                drivers[index] = Driver(
                    holder: driver.holder, entry: entry,
                    next: RingLedgerTests.document(driver.next.epoch.value + 1, mark: mark))
            } catch {
                // It tries the same again, as long as it drives.
            }
        }
        let history = try await (etcd.history[ledger.ringKey] ?? []).map {
            try JSONDecoder().decode(RingDocument.self, from: $0)
        }
        #expect(zip(history, history.dropFirst()).allSatisfy { $0.epoch.next == $1.epoch })
        #expect(recorded.values.allSatisfy(history.contains))
        #expect(history.count >= 3)
    }

    // MARK: Decisions

    private static func page(_ document: RingDocument?, driver: String? = nil) -> RingLedger.Page {
        RingLedger.Page(document: document, revision: document == nil ? 0 : 5, driver: driver, storeRevision: 9)
    }

    @Test("what a page says to a driver whose record failed")
    func standings() {
        let next = RingLedgerTests.document(5)
        for (page, standing) in [
            (RingLedgerTests.page(next, driver: "a"), RingLedger.Page.Standing.recorded),
            (RingLedgerTests.page(next, driver: "b"), .overtaken), (RingLedgerTests.page(next), .overtaken),
            (RingLedgerTests.page(nil, driver: "a"), .open),
            (RingLedgerTests.page(RingLedgerTests.document(4), driver: "a"), .open),
            (RingLedgerTests.page(RingLedgerTests.document(5, mark: 2), driver: "a"), .overtaken),
            (RingLedgerTests.page(RingLedgerTests.document(6), driver: "a"), .overtaken),
        ] { #expect(page.standing(of: next, by: "a") == standing, "\(page)") }
    }

    @Test("what becomes of an operator's ring")
    func installations() {
        let document = RingLedgerTests.document
        func installation(
            _ wanted: RingDocument, _ page: RingLedger.Page, own: RingDocument?
        ) -> RingLedger.Page.Installation {
            page.installation(
                of: wanted.ring, replicas: wanted.replicas, standbys: wanted.standbys, own: own)
        }
        let page = RingLedgerTests.page
        let wanted = document(0, 1, RingLedgerTests.nodes)
        let another = document(7, 2, RingLedgerTests.nodes)
        let seventh = document(7, 1, RingLedgerTests.nodes)
        let eighth = document(8, 1, RingLedgerTests.nodes)
        // Nobody knows a ring.
        var founded = document(1, 1, RingLedgerTests.nodes)
        founded.cluster = RingDocument.clusterName(foundedWith: founded.ring)
        #expect(installation(wanted, page(nil, nil), own: nil) == .put(founded))
        // It is there; this node knows it, or not yet.
        #expect(installation(wanted, page(seventh, nil), own: seventh) == .follow(seventh))
        #expect(installation(wanted, page(seventh, nil), own: nil) == .follow(seventh))
        // Another one is there, or known here.
        #expect(installation(wanted, page(another, nil), own: another) == .put(eighth))
        #expect(installation(wanted, page(another, nil), own: nil) == .put(eighth))
        #expect(installation(wanted, page(document(3, 1, RingLedgerTests.nodes), nil), own: another) == .put(eighth))
        // etcd does not know it yet.
        #expect(installation(wanted, page(nil, nil), own: seventh) == .put(seventh))
        #expect(installation(wanted, page(document(3, 2, RingLedgerTests.nodes), nil), own: seventh) == .put(seventh))
        // Two of one epoch: this node would not follow.
        #expect(installation(wanted, page(seventh, nil), own: another) == .put(eighth))
        // Somebody drives.
        #expect(installation(wanted, page(seventh, "a"), own: seventh) == .busy(driver: "a"))
        // Another cluster's.
        let stranger = document(7, 1, RingLedgerTests.nodes.suffix(2))
        #expect(installation(wanted, page(stranger, nil), own: nil) == .foreign)
        // Also where that one has a name, which the wanted ring would take over; or this node is of a third one.
        var named = stranger
        named.cluster = "a"
        #expect(installation(wanted, page(named, nil), own: nil) == .foreign)
        var (ours, theirs) = (seventh, seventh)
        (ours.cluster, theirs.cluster) = ("a", "b")
        #expect(installation(wanted, page(theirs, nil), own: ours) == .foreign)
        #expect(installation(wanted, page(ours, nil), own: ours) == .follow(ours))
    }

    @Test func noRingIsInstalledWhileOneChanges() throws {
        var changing = RingLedgerTests.document(4)
        let node = RingLedgerTests.nodes[3]
        let change = RingChange.add(node: node, positions: [try #require(Position(77))])
        changing.transition = RingTransition(
            id: "x", change: change, from: changing.ring, to: try change.applied(to: changing.ring), step: .copying)
        for (page, own) in [
            (RingLedgerTests.page(changing), nil), (RingLedgerTests.page(nil), changing),
        ] as [(RingLedger.Page, RingDocument?)] {
            #expect(
                page.installation(of: changing.ring, replicas: 1, standbys: [], own: own) == .busy(driver: nil))
        }
    }
}
