// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import NIOCore
import Testing

@Suite("Listings of several hosts put together")
struct ListingMergeTests {
    private let nodes = QuorumFixtures.nodes
    private let keys = ["a", "b", "c", "d", "e", "f"].compactMap { Key($0) }.sorted { StoredKey($0) < StoredKey($1) }

    private func table(_ count: Int, replicas: Int, transition: RingTransition? = nil) throws -> RoutingTable {
        let seats = nodes.prefix(count).enumerated().map {
            Ring.Seat(position: Position(1000 + 3000 * $0.offset)!, node: $0.element)
        }
        return RoutingTable(
            RingDocument(epoch: Epoch(1), ring: try #require(Ring(seats: seats)), replicas: replicas, standbys: []))
    }

    private func pair(_ index: Int, _ time: UInt64, isTombstone: Bool = false, expiry: UInt64? = nil) -> ListedPair {
        let key = keys[index]
        let record = Envelope(
            key: key, storedKey: StoredKey(key), value: ByteBuffer(), version: QuorumFixtures.version(time),
            isTombstone: isTombstone, expiryMilliseconds: expiry)
        return ListedPair(key: StoredKey(key), record: record, valueBytes: 0)
    }

    private func through(_ index: Int) -> ListingMark { ListingMark(through: StoredKey(keys[index])) }

    @Test("each key comes once, in its newest record, and not where that one is gone")
    func newest() throws {
        let table = try table(3, replicas: 3)
        let listings = [
            nodes[0]: HostListing(pairs: [pair(0, 1), pair(1, 5), pair(3, 4)], through: .end),
            nodes[1]: HostListing(
                pairs: [pair(0, 2), pair(1, 6, isTombstone: true), pair(2, 3), pair(4, 9, expiry: 70)], through: .end),
        ]
        let merge = try #require(ListingMerge(listings, under: table, limit: 100, atMilliseconds: 70))
        #expect(merge.pairs == [pair(0, 2), pair(2, 3), pair(3, 4)])
        #expect(merge.through == .end)
        #expect(
            ListingMerge(listings, under: table, limit: 100, atMilliseconds: 69)?.pairs.last == pair(4, 9, expiry: 70))
    }

    @Test("what one host has behind the least mark waits for the next part")
    func marks() throws {
        let table = try table(3, replicas: 2)
        let listings = [
            nodes[0]: HostListing(pairs: [pair(0, 1), pair(2, 1), pair(4, 1)], through: through(4)),
            nodes[1]: HostListing(pairs: [pair(0, 2), pair(1, 1)], through: through(2)),
            nodes[2]: HostListing(pairs: [pair(3, 1)], through: .end),
        ]
        let merge = try #require(ListingMerge(listings, under: table, limit: 100, atMilliseconds: 0))
        #expect(merge.pairs == [pair(0, 2), pair(1, 1), pair(2, 1)])
        #expect(merge.through == through(2))
    }

    @Test("no more is taken than is wanted, though each host gave as much")
    func limit() throws {
        let table = try table(2, replicas: 1)
        let listings = [
            nodes[0]: HostListing(pairs: [pair(0, 1), pair(3, 1, isTombstone: true)], through: through(3)),
            nodes[1]: HostListing(pairs: [pair(1, 1), pair(2, 1), pair(4, 1)], through: through(4)),
        ]
        for (limit, taken, mark) in [(1, [0], 0), (2, [0, 1], 1), (3, [0, 1, 2], 2), (4, [0, 1, 2], 3)] {
            let merge = try #require(ListingMerge(listings, under: table, limit: limit, atMilliseconds: 0))
            #expect(merge.pairs == taken.map { pair($0, 1) } && merge.through == through(mark))
        }
    }

    @Test("every slot's group needs its quorum")
    func quorums() throws {
        func isEnough(_ table: RoutingTable, _ heard: Int...) -> Bool {
            let listings = heard.map { (nodes[$0], HostListing(pairs: [], through: .end)) }
            return ListingMerge(
                Dictionary(uniqueKeysWithValues: listings), under: table, limit: 100, atMilliseconds: 0) != nil
        }
        let alone = try table(3, replicas: 1)
        #expect(isEnough(alone, 0, 1, 2) && !isEnough(alone, 0, 1) && !isEnough(alone))
        let three = try table(3, replicas: 3)
        #expect(isEnough(three, 0, 1) && isEnough(three, 1, 2) && !isEnough(three, 1))
        let two = try table(3, replicas: 2)
        #expect(!isEnough(two, 0, 1))
    }

    @Test("while a slot moves, old and new owners have to answer, as reads have it")
    func moving() throws {
        let document = try table(2, replicas: 1).document
        let ring = document.ring
        let seats = ring.seats + [Ring.Seat(position: Position(7000)!, node: nodes[2])]
        let wider = try #require(Ring(seats: seats))
        for step in RingTransition.Step.allCases {
            var changing = document
            changing.transition = RingTransition(
                id: "x", change: .add(node: nodes[2], positions: [Position(7000)!]), from: ring, to: wider, step: step)
            let table = RoutingTable(changing)
            let isAsked = table.placements.contains { $0.reads.contains { $0.members.contains(nodes[2]) } }
            let listings = [
                nodes[0]: HostListing(pairs: [], through: .end), nodes[1]: HostListing(pairs: [], through: .end),
            ]
            #expect((ListingMerge(listings, under: table, limit: 100, atMilliseconds: 0) == nil) == isAsked, "\(step)")
        }
    }
}
