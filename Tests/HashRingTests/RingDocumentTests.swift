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
            seed % 2 == 0 ? .remove(node: to.nodes[0]) : .add(node: to.nodes[0], position: to.seats[0].position)
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
        #"{"epoch":1,"ring":[],"replicas":1,"standbys":[]}"#, #"{"ring":{"3000":"127.0.0.1:5000"}}"#, "null", "[]", "",
    ])
    func malformedJSONIsRefused(_ json: String) {
        #expect(throws: (any Error).self) { try JSONDecoder().decode(RingDocument.self, from: Data(json.utf8)) }
    }

    @Test(arguments: [
        #"{"kind":"add","node":"127.0.0.1:5000","position":10000}"#, #"{"kind":"add","node":"127.0.0.1:5000"}"#,
        #"{"kind":"move","node":"127.0.0.1:5000","position":1}"#, #"{"kind":"remove"}"#,
    ])
    func malformedChangeIsRefused(_ json: String) {
        #expect(throws: (any Error).self) { try JSONDecoder().decode(RingChange.self, from: Data(json.utf8)) }
    }

    @Test func changes() throws {
        let nodes = try (1...3).map { try #require(NodeID("10.0.0.\($0):1")) }
        let here = try #require(Position(10))
        let there = try #require(Position(20))
        let one = try #require(Ring(seats: [.init(position: here, node: nodes[0])]))
        let two = try #require(one.adding(nodes[1], at: there))
        #expect(try RingChange.add(node: nodes[1], position: there).applied(to: one) == two)
        #expect(try RingChange.remove(node: nodes[1]).applied(to: two) == one)
        #expect(throws: RingChangeError.alreadyMember(nodes[1], at: [there])) {
            try RingChange.add(node: nodes[1], position: here).applied(to: two)
        }
        #expect(throws: RingChangeError.positionTaken(there, by: nodes[1])) {
            try RingChange.add(node: nodes[2], position: there).applied(to: two)
        }
        #expect(throws: RingChangeError.unknownNode(nodes[2])) {
            try RingChange.remove(node: nodes[2]).applied(to: two)
        }
        #expect(throws: RingChangeError.lastNode(nodes[0])) { try RingChange.remove(node: nodes[0]).applied(to: one) }
    }

    @Test func fullRing() throws {
        let seats = try (0..<Ring.nodeLimit).map { number in
            let node = try #require(NodeID("10.0.\(number / 250).\(number % 250):1"))
            return Ring.Seat(position: try #require(Position(number)), node: node)
        }
        let full = try #require(Ring(seats: seats))
        let change = RingChange.add(node: try #require(NodeID("10.1.0.1:1")), position: try #require(Position(9000)))
        #expect(throws: RingChangeError.tooManyNodes) { try change.applied(to: full) }
        let almost = full.removing(seats[0].node)
        #expect(try change.applied(to: almost).nodes.count == Ring.nodeLimit)
    }
}
