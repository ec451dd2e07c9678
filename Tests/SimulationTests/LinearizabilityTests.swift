// SPDX-License-Identifier: Apache-2.0

import KeyValue
import TestSupport
import Testing

/// The checkers against bad histories made by hand, and against each other.
struct LinearizabilityTests {
    private static func write(_ value: Int, _ call: Int, _ end: Int?, _ version: UInt64? = nil) -> Call {
        Call(isWrite: true, value: value, call: call, end: end, version: version.map { Version(time: $0, writer: 1) })
    }

    private static func read(_ value: Int, _ call: Int, _ end: Int, _ version: UInt64? = nil) -> Call {
        Call(isWrite: false, value: value, call: call, end: end, version: version.map { Version(time: $0, writer: 1) })
    }

    static let bad: [(name: String, calls: [Call])] = [
        ("a lost write", [write(1, 1, 2, 5), read(0, 3, 4, 0)]),
        ("a stale read", [write(1, 1, 2, 5), write(2, 3, 4, 6), read(1, 5, 6, 5)]),
        ("two reads go back", [write(1, 1, 2, 5), write(2, 3, 20, 6), read(2, 4, 5, 6), read(1, 6, 7, 5)]),
        ("back in time past an unknown write", [write(1, 1, nil), read(1, 2, 3, 5), read(0, 4, 5, 0)]),
        (
            "a resurrection",
            [write(1, 1, 2, 5), read(1, 2, 3, 5), write(2, 4, 5, 6), read(2, 6, 7, 6), read(1, 8, 9, 5)]
        ),
        ("an acknowledged write is skipped", [write(1, 1, 2, 7), write(2, 3, 4, 6), read(1, 5, 6, 7)]),
    ]

    @Test(arguments: bad)
    func badHistoryIsNoticed(_ history: (name: String, calls: [Call])) {
        #expect(Linearizability.zones(history.calls) != nil)
        #expect(Linearizability.versions(history.calls) != nil)
        #expect(!Linearizability.search(history.calls))
    }

    @Test func readsFromNowhereAreNoticed() {
        #expect(Linearizability.zones([LinearizabilityTests.read(7, 1, 2)]) != nil)
        #expect(
            Linearizability.zones([LinearizabilityTests.read(1, 1, 2), LinearizabilityTests.write(1, 3, 4)]) != nil)
        var refused = LinearizabilityTests.write(1, 1, 2)
        refused.isRefused = true
        #expect(Linearizability.zones([refused, LinearizabilityTests.read(1, 3, 4)]) != nil)
        #expect(Linearizability.zones([refused, LinearizabilityTests.read(0, 3, 4)]) == nil)
    }

    @Test func oneValueHasOneVersion() {
        let calls = [LinearizabilityTests.write(1, 1, 2, 5), LinearizabilityTests.read(1, 3, 4, 6)]
        #expect(Linearizability.versions(calls) != nil)
    }

    /// Zones and search say the same of every small history, good or bad; what passes by versions passes by both.
    @Test func checkersAgreeOnRandomHistories() {
        var random = SeededGenerator(seed: 1)
        var good = 0
        var bad = 0
        for round in 0..<60_000 {
            var calls: [Call] = []
            let count = random.pick(2...7)
            let writes = random.pick(1...3)
            // Times are all different, so that no two events are ambiguous.
            var times = Array(1...2 * count).shuffled(using: &random)
            for index in 0..<count {
                let (one, two) = (times.removeLast(), times.removeLast())
                let (call, end) = (min(one, two), max(one, two))
                if index < writes {
                    calls.append(
                        Call(
                            isWrite: true, value: index + 1, call: call, end: random.chance(20) ? nil : end,
                            version: Version(time: UInt64(index + 1), writer: 1)))
                    if calls[index].end == nil { calls[index].version = nil }
                } else {
                    let value = random.pick(0...writes)
                    calls.append(
                        Call(
                            isWrite: false, value: value, call: call, end: end,
                            version: Version(time: UInt64(value), writer: value == 0 ? 0 : 1)))
                }
            }
            let isLinearizable = Linearizability.search(calls)
            if isLinearizable { good += 1 } else { bad += 1 }
            #expect((Linearizability.zones(calls) == nil) == isLinearizable, "round \(round): \(calls)")
            let isFromFuture = calls.contains { read in
                !read.isWrite && calls.contains { $0.isWrite && $0.value == read.value && $0.call > read.end ?? 0 }
            }
            if Linearizability.versions(calls) == nil, !isFromFuture {
                #expect(isLinearizable, "round \(round): \(calls)")
            }
        }
        #expect(good > 5000 && bad > 5000)
    }
}
