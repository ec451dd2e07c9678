// SPDX-License-Identifier: Apache-2.0

import Control
import Foundation
import HashRing
import Testing

private func node(_ number: Int) -> NodeID { NodeID("10.0.0.\(number):5000")! }

private func document(replicas: Int, _ seats: [(Int, Int)]) -> RingDocument {
    RingDocument(
        epoch: Epoch(1), ring: Ring(seats: seats.map { Ring.Seat(position: Position($0.0)!, node: node($0.1)) })!,
        replicas: replicas)
}

@Suite("What a change would move") struct ChangePreviewTests {
    @Test func aNewcomerTakesWhatLiesBeforeIt() throws {
        let preview = try ChangePreview(
            .exactly(.add(node: node(3), positions: [Position(5000)!])),
            of: document(replicas: 1, [(3000, 1), (8000, 2)]))
        #expect(preview.nodes.map(\.slotsOwnedBefore) == [5000, 5000, 0])
        #expect(preview.nodes.map(\.slotsOwnedAfter) == [5000, 3000, 2000])
        #expect((preview.slotsWithNewOwner, preview.copiesMoved, preview.copies) == (2000, 2000, 10_000))
        #expect(preview.estimatedPairs(held: [node(1): 500, node(2): 500]) == 200)
        #expect(preview.estimatedPairs(held: [:]) == nil)
        #expect(preview.estimatedPairs(held: [node(1): .max, node(2): .max]) ?? 0 > 1 << 61)
    }

    @Test func withReplicasOnlyCopiesTravelThatSomebodyLacks() throws {
        let three = document(replicas: 3, [(1000, 1), (5000, 2), (9000, 3)])
        let preview = try ChangePreview(.exactly(.remove(node: node(2))), of: three)
        // Everybody has everything already.
        #expect((preview.slotsWithNewOwner, preview.copiesMoved, preview.copies) == (4000, 0, 20_000))
        let replaced = try ChangePreview(.exactly(.replace(old: node(2), new: node(4))), of: three)
        #expect(replaced.copiesMoved == 10_000)
        #expect(replaced.nodes.map(\.slotsHeldAfter) == [10_000, 0, 10_000, 10_000])
    }

    @Test func allSharesAddUp() throws {
        let large = document(replicas: 2, (0..<40).map { ($0 * 237, $0 % 7) })
        let preview = try ChangePreview(.addAnywhere(node(9), count: 6), of: large)
        #expect(preview.nodes.reduce(0) { $0 + $1.slotsOwnedBefore } == 10_000)
        #expect(preview.nodes.reduce(0) { $0 + $1.slotsOwnedAfter } == 10_000)
        #expect(preview.nodes.reduce(0) { $0 + $1.slotsHeldAfter } == 20_000)
        #expect(preview.changed.slotsOwned.values.reduce(0, +) == 10_000)
        #expect(preview.ring.positions(of: node(9)).isEmpty && preview.changed.positions(of: node(9)).count == 6)
    }

    @Test func whatCannotBeMadeIsRefused() {
        let ring = document(replicas: 1, [(3000, 1)])
        #expect(throws: RingChangeError.lastNode(node(1))) {
            try ChangePreview(.exactly(.remove(node: node(1))), of: ring)
        }
        #expect(throws: RingChangeError.unknownNode(node(2))) {
            try ChangePreview(.exactly(.remove(node: node(2))), of: ring)
        }
    }
}

@Suite("How far a change is") struct ChangeProgressTests {
    private func status(epoch: Int, step: String, _ parts: String) throws -> NodeStatus {
        let text = """
            {"version":"0.1.0","node":"10.0.0.1:5000","uptimeSeconds":3,"epoch":\(epoch),"isRecovering":false,
             "hints":{"waiting":0},"replicas":1,"ring":{"3000":"10.0.0.1:5000"},"standbys":[],
             "transition":{"id":"a","change":{"kind":"add","node":"10.0.0.3:5000","positions":[5000]},"step":"\(step)",
             "abortReason":null,"from":{"3000":"10.0.0.1:5000"},"to":{"3000":"10.0.0.1:5000","5000":"10.0.0.3:5000"},
             "progress":[\(parts)]},
             "lastChange":null,"workers":[],"memcached":{"isAnswering":true},"snapshot":{"pairs":null,"bytes":null}}
            """
        return try JSONDecoder().decode(NodeStatus.self, from: Data(text.utf8))
    }

    private func part(_ node: Int, found: Int, done: Int, seconds: Double) -> String {
        """
        {"node":"10.0.0.\(node):5000","pairsFound":\(found),"pairsDone":\(done),"pairsMoved":0,"bytesMoved":0,
         "seconds":\(seconds)}
        """
    }

    @Test func theNewestEpochCountsAndTheFarthestWordOfEachNode() throws {
        let old = try status(epoch: 4, step: "copying", part(1, found: 999, done: 999, seconds: 1))
        let first = try status(epoch: 5, step: "crossing", part(1, found: 100, done: 10, seconds: 1))
        let second = try status(
            epoch: 5, step: "crossing",
            part(1, found: 100, done: 50, seconds: 5) + "," + part(2, found: 300, done: 100, seconds: 5))
        let progress = try #require(ChangeProgress([old, second, first]))
        #expect((progress.step, progress.pairsFound, progress.pairsDone) == ("crossing", 400, 150))
        // 50 at 10/s, 200 at 20/s, side by side.
        #expect((progress.pairsPerSecond, progress.secondsLeft) == (30, 10))
        #expect(progress.line == "crossing: 150 of 400 pairs, 30/s, 10 s left")
        #expect(progress.bar(width: 80).hasPrefix("[") && progress.bar(width: 80).contains("] 37 % crossing"))
        #expect(progress.bar(width: 80).count < 80)
    }

    @Test(arguments: ["9223372036854775807", "-9223372036854775808", "-1", "1125899906842625"])
    func numbersThatDoNotAddUpAreNoStatus(_ found: String) {
        #expect(throws: DecodingError.self) {
            try status(
                epoch: 5, step: "copying",
                part(1, found: 1, done: 1, seconds: 1).replacing("\"pairsFound\":1", with: "\"pairsFound\":\(found)"))
        }
    }

    @Test func withoutAnySpeedThereIsNoTimeLeft() throws {
        let begun = try #require(
            ChangeProgress([try status(epoch: 5, step: "copying", part(1, found: 10, done: 0, seconds: 0))]))
        #expect(begun.secondsLeft == nil && begun.share == 0)
        #expect(begun.line == "copying: 0 of 10 pairs")
        #expect(ChangeProgress([]) == nil)
    }
}

@Suite("What became of a request") struct RequestOutcomeTests {
    @Test(
        arguments: [
            (200, nil, true, RequestOutcome.done), (404, "not-applied", false, .notFound),
            (412, "not-applied", true, .conditionFailed),
            (400, "not-applied", true, .refused), (429, "not-applied", true, .unavailable),
            (503, "not-applied", true, .unavailable),
            (503, "unknown", true, .unknown), (502, nil, true, .unknown), (504, nil, false, .unavailable),
            (507, "not-applied", true, .refused), (507, "unknown", true, .unknown), (500, nil, true, .unknown),
            // What somebody else does not have, or would send elsewhere.
            (404, nil, false, .refused), (412, nil, true, .refused), (302, nil, true, .refused),
            (304, nil, false, .refused), (204, "not-applied", true, .done),
        ] as [(Int, String?, Bool, RequestOutcome)])
    func isToldByStatusAndHeader(_ status: Int, _ outcome: String?, _ changes: Bool, _ wanted: RequestOutcome) {
        #expect(RequestOutcome(status: status, outcome: outcome, changes: changes) == wanted)
    }

    @Test func exitStatusesNeverChange() {
        let all: [RequestOutcome] = [.done, .refused, .unavailable, .unknown, .notFound, .conditionFailed]
        #expect(all.map(\.exitStatus) == [0, 1, 2, 3, 4, 5])
    }
}

@Suite("Figures and tables") struct FigureTests {
    @Test func figures() {
        #expect([0, 950, 1200, 3_400_000, 0.25].map(Figures.short) == ["0", "950", "1.2k", "3.4M", "0.3"])
        #expect([0, 1023, 1536, 5 * 1024 * 1024].map(Figures.bytes) == ["0 B", "1023 B", "1.5 KiB", "5.0 MiB"])
        #expect(
            [0.4, 59, 200, 7500].map { Figures.duration(seconds: $0) } == ["0 s", "59 s", "3 min 20 s", "2 h 5 min"])
        // (Nodes may say anything.)
        for odd in [Double.nan, .infinity, -.infinity, 1e300, -1e300] {
            #expect(Figures.duration(seconds: odd) == "long" && Figures.decimal(odd, places: 1) == "-")
        }
        #expect(Figures.decimal(-0.04, places: 1) == "0.0" && Figures.decimal(12.345, places: 2) == "12.35")
        #expect(Figures.decimal(.nan, places: 1) == "-" && Figures.decimal(1.05, places: 0) == "1")
        #expect(Figures.percent(1, of: 3) == "33.3 %" && Figures.percent(1, of: 0) == "-")
    }

    @Test func columnsAreAsWideAsWhatStandsInThem() {
        var table = TextTable(["NAME", "N"], figures: [1])
        table.append(["a", "100"])
        table.append(["longer", ""])
        #expect(table.lines == ["NAME      N", "a       100", "longer"])
    }
}
