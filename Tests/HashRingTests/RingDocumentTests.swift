// SPDX-License-Identifier: Apache-2.0

import Foundation
import HashRing
import Testing

struct RingDocumentTests {
    private static func document(_ seed: Int) -> RingDocument {
        let ring = RingTests.ring(seed: seed, seats: seed % 4 + 1, nodes: 3)
        let to = RingTests.ring(seed: seed + 9, seats: 3, nodes: 4)
        let step = RingTransition.Step.allCases[seed % RingTransition.Step.allCases.count]
        let change: RingChange =
            seed % 2 == 0
            ? .remove(node: to.nodes[0]) : .add(node: to.nodes[0], positions: to.positions(of: to.nodes[0]))
        let transition = RingTransition(
            id: "id\(seed)", change: change, from: ring, to: to, step: step,
            fences: to.nodes.map { .init(node: $0, generation: Generation(UInt64(seed) << 40)) },
            abortReason: seed % 3 == 0 ? "he said \"stop\"" : nil, losses: seed % 5 == 0 ? ["a", "b"] : [])
        return RingDocument(
            epoch: Epoch(.max / 2 - UInt64(seed)), ring: ring, replicas: seed % 3 + 1, standbys: to.nodes,
            transition: seed % 4 == 3 ? nil : transition,
            lastChange: FinishedChange(id: "x", change: change, outcome: .aborted, reason: "why not"))
    }

    @Test(arguments: 0..<30)
    func jsonGivesTheSameDocument(_ seed: Int) throws {
        let document = RingDocumentTests.document(seed)
        #expect(try JSONDecoder().decode(RingDocument.self, from: JSONEncoder().encode(document)) == document)
        var record = HostRingRecord(document: document)
        _ = record.promise(to: "me", nowMilliseconds: 1, lifeMilliseconds: 2)
        #expect(try JSONDecoder().decode(HostRingRecord.self, from: JSONEncoder().encode(record)) == record)
    }

    /// A document that was cut off is no other document.
    @Test(arguments: 0..<4)
    func truncatedJSONIsNone(_ seed: Int) throws {
        let whole = try JSONEncoder().encode(RingDocumentTests.document(seed))
        for count in 0..<whole.count {
            #expect(throws: (any Error).self) {
                try JSONDecoder().decode(RingDocument.self, from: whole.prefix(count))
            }
        }
    }

    @Test(arguments: [
        #"{"epoch":1,"ring":{"3000":"127.0.0.1:5000","10000":"127.0.0.2:5000"},"replicas":1,"standbys":[]}"#,
        #"{"epoch":1,"ring":{"3000":"127.0.0.1"},"replicas":1,"standbys":[]}"#,
        #"{"epoch":1,"ring":{"-1":"127.0.0.1:5000"},"replicas":1,"standbys":[]}"#,
        #"{"epoch":1,"ring":{"3000":"127.0.0.1:5000","03000":"127.0.0.2:5000"},"replicas":1,"standbys":[]}"#,
        #"{"epoch":-1,"ring":{"3000":"127.0.0.1:5000"},"replicas":1,"standbys":[]}"#,
        #"{"epoch":1,"ring":{"3000":"127.0.0.1:5000"},"replicas":1,"standbys":["localhost:1"]}"#,
        #"{"epoch":1,"ring":{"127.0.0.1:5000":[10000]},"replicas":1,"standbys":[]}"#,
        #"{"epoch":1,"ring":{"127.0.0.1:5000":[1],"127.0.0.2:5000":[1]},"replicas":1,"standbys":[]}"#,
        #"{"epoch":1,"ring":{"127.0.0.1":[1]},"replicas":1,"standbys":[]}"#,
        #"{"epoch":1,"ring":{"127.0.0.1:5000":1},"replicas":1,"standbys":[]}"#,
        #"{"epoch":1,"ring":[],"replicas":1,"standbys":[]}"#, #"{"ring":{"3000":"127.0.0.1:5000"}}"#, "null", "[]", "",
    ])
    func malformedJSONIsRefused(_ json: String) {
        #expect(throws: (any Error).self) { try JSONDecoder().decode(RingDocument.self, from: Data(json.utf8)) }
    }

    @Test(arguments: [
        #"{"kind":"add","node":"127.0.0.1:5000","position":10000}"#, #"{"kind":"add","node":"127.0.0.1:5000"}"#,
        #"{"kind":"move","node":"127.0.0.1:5000","position":1}"#, #"{"kind":"remove"}"#,
        #"{"kind":"add","node":"127.0.0.1:5000","positions":[]}"#,
        #"{"kind":"add","node":"127.0.0.1:5000","positions":[1,10000]}"#,
        #"{"kind":"add","node":"127.0.0.1:5000","positions":[2,1]}"#,
        #"{"kind":"add","node":"127.0.0.1:5000","positions":[1,1]}"#,
    ])
    func malformedChangeIsRefused(_ json: String) {
        #expect(throws: (any Error).self) { try JSONDecoder().decode(RingChange.self, from: Data(json.utf8)) }
    }

    /// What an earlier version left in memcached and on disk.
    /// From a node of another version, or of none.
    @Test(arguments: [
        #"{"epoch":1,"ring":{},"replicas":1,"standbys":[]}"#,
        #"{"epoch":1,"ring":{"3000":"10.0.0.1:1"},"replicas":0,"standbys":[]}"#,
        #"{"epoch":1,"ring":{"3000":"10.0.0.1:1"},"replicas":1000000,"standbys":[]}"#,
    ])
    func whatNobodyCanActOnIsNotRead(json: String) {
        #expect(throws: DecodingError.self) {
            try JSONDecoder().decode(RingDocument.self, from: Data(json.utf8))
        }
    }

    @Test func clustersHaveNames() throws {
        let one = try #require(NodeID("10.0.0.1:1"))
        let two = try #require(NodeID("10.0.0.2:1"))
        let (place, further) = (try #require(Position(100)), try #require(Position(200)))
        let ring = try #require(Ring(seats: [.init(position: place, node: one)]))
        let other = try #require(ring.adding(two, at: further))
        var record = HostRingRecord()
        _ = record.install(ring, replicas: 1, standbys: [], nowMilliseconds: 0)
        let first = try #require(record.document)
        #expect(first.cluster == RingDocument.clusterName(foundedWith: ring) && first.cluster?.utf8.count == 16)
        _ = record.install(other, replicas: 1, standbys: [], nowMilliseconds: 0)
        #expect(record.document?.cluster == first.cluster, "it stays the same cluster")
        var fresh = HostRingRecord()
        _ = fresh.install(other, replicas: 1, standbys: [], nowMilliseconds: 0)
        let second = try #require(fresh.document)
        #expect(!first.isOfOneCluster(with: second) && second.isOfOneCluster(with: second))
        // One that has no name may be either.
        #expect(RingDocument(epoch: Epoch(1), ring: ring).isOfOneCluster(with: second))
        #expect(
            !RingDocument(epoch: Epoch(1), ring: ring).isOfOneCluster(
                with: RingDocument(epoch: Epoch(1), ring: other.removing(one))))
    }

    @Test func formerJSONIsRead() throws {
        let json = """
            {"epoch":7,"ring":{"3000":"10.0.0.1:1","8000":"10.0.0.2:1"},"replicas":1,"standbys":[],"lastChange":
            {"id":"x","change":{"kind":"add","node":"10.0.0.2:1","position":8000},"outcome":"completed","reason":""}}
            """
        let nodes = try (1...2).map { try #require(NodeID("10.0.0.\($0):1")) }
        let positions = try [3000, 8000].map { try #require(Position($0)) }
        let ring = try #require(Ring(seats: zip(positions, nodes).map { .init(position: $0, node: $1) }))
        let document = RingDocument(
            epoch: Epoch(7), ring: ring,
            lastChange: FinishedChange(
                id: "x", change: .add(node: nodes[1], positions: [positions[1]]), outcome: .completed, reason: ""))
        #expect(try JSONDecoder().decode(RingDocument.self, from: Data(json.utf8)) == document)
    }

    /// The largest record there can be fits into a control value of 512 KiB: a ring with all positions taken, of nodes
    /// with the longest names, all of which give something to a newcomer.
    @Test func theLargestRecordFits() throws {
        let nodes = try (0..<Ring.nodeLimit).map {
            try #require(NodeID("[1111:2222:3333:4444:5555:6666:7777:\(1000 + $0)]:65535"))
        }
        let seats = try (0..<Slot.count).map { Ring.Seat(position: try #require(Position($0)), node: nodes[$0 % 999]) }
        let from = try #require(Ring(seats: Array(seats.dropLast(PositionPicker.countLimit))))
        let change = RingChange.add(
            node: nodes[999], positions: seats.suffix(PositionPicker.countLimit).map(\.position))
        let to = try change.applied(to: from)
        let transition = RingTransition(
            id: "0123456789abcdef", change: change, from: from, to: to, step: .copying,
            fences: nodes.map { .init(node: $0, generation: Generation(.max)) })
        let document = RingDocument(
            epoch: Epoch(1 << 40), ring: from, transition: transition,
            lastChange: FinishedChange(id: "0123456789abcdef", change: change, outcome: .completed, reason: ""))
        #expect(try JSONEncoder().encode(HostRingRecord(document: document)).count < 500_000)
    }

    @Test func changes() throws {
        let nodes = try (1...3).map { try #require(NodeID("10.0.0.\($0):1")) }
        let here = try #require(Position(10))
        let there = try #require(Position(20))
        let one = try #require(Ring(seats: [.init(position: here, node: nodes[0])]))
        let two = try #require(one.adding(nodes[1], at: there))
        #expect(try RingChange.add(node: nodes[1], positions: [there]).applied(to: one) == two)
        #expect(try RingChange.remove(node: nodes[1]).applied(to: two) == one)
        #expect(throws: RingChangeError.alreadyMember(nodes[1], at: [there])) {
            try RingChange.add(node: nodes[1], positions: [here]).applied(to: two)
        }
        #expect(throws: RingChangeError.positionTaken(there, by: nodes[1])) {
            try RingChange.add(node: nodes[2], positions: [there]).applied(to: two)
        }
        // The first that is taken is named, whoever has it.
        let free = try #require(Position(5))
        #expect(throws: RingChangeError.positionTaken(here, by: nodes[0])) {
            try RingChange.add(node: nodes[2], positions: [free, here, there]).applied(to: two)
        }
        let three = try RingChange.add(node: nodes[2], positions: [free, try #require(Position(15))]).applied(to: two)
        #expect(three.seats.map(\.node) == [nodes[2], nodes[0], nodes[2], nodes[1]])
        #expect(try RingChange.remove(node: nodes[2]).applied(to: three) == two)
        #expect(throws: RingChangeError.unknownNode(nodes[2])) {
            try RingChange.remove(node: nodes[2]).applied(to: two)
        }
        let replaced = try RingChange.replace(old: nodes[1], new: nodes[2]).applied(to: two)
        #expect(replaced.seats.map(\.node) == [nodes[0], nodes[2]])
        #expect(replaced.positions(of: nodes[2]) == [there])
        #expect(throws: RingChangeError.unknownNode(nodes[2])) {
            try RingChange.replace(old: nodes[2], new: try #require(NodeID("10.0.0.4:1"))).applied(to: two)
        }
        #expect(throws: RingChangeError.alreadyMember(nodes[1], at: [there])) {
            try RingChange.replace(old: nodes[0], new: nodes[1]).applied(to: two)
        }
        let change = RingChange.replace(old: nodes[1], new: nodes[2])
        #expect(try JSONDecoder().decode(RingChange.self, from: JSONEncoder().encode(change)) == change)
        #expect(throws: RingChangeError.lastNode(nodes[0])) { try RingChange.remove(node: nodes[0]).applied(to: one) }
    }

    @Test func fullRing() throws {
        let seats = try (0..<Ring.nodeLimit).map { number in
            let node = try #require(NodeID("10.0.\(number / 250).\(number % 250):1"))
            return Ring.Seat(position: try #require(Position(number)), node: node)
        }
        let full = try #require(Ring(seats: seats))
        let change = RingChange.add(node: try #require(NodeID("10.1.0.1:1")), positions: [try #require(Position(9000))])
        #expect(throws: RingChangeError.tooManyNodes) { try change.applied(to: full) }
        let almost = full.removing(seats[0].node)
        #expect(try change.applied(to: almost).nodes.count == Ring.nodeLimit)
    }
}
