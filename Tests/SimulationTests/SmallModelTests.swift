// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// The small model walked through completely, depth first; states are told apart by their hash.
@Suite(.serialized) struct SmallModelTests {
    private struct Walk {
        var states = 0
        var ends = 0
        var completed = 0
        var counterexample: SmallModel?
    }

    private static func walk(
        _ start: SmallModel, _ mutant: SmallModel.Mutant? = nil, limit: Int = .max
    ) -> Walk {
        let routes = Routes()
        var walk = Walk()
        var seen: Set<Int> = [start.hashValue]
        var stack = [start]
        while let state = stack.popLast() {
            walk.states += 1
            let next = state.successors(routes, mutant)
            if state.isAtRest || next.isEmpty {
                walk.ends += 1
                if state.isOver { walk.completed += 1 }
                if !state.isLinearizable {
                    walk.counterexample = state
                    return walk
                }
            }
            if walk.states >= limit { return walk }
            for state in next where seen.insert(state.hashValue).inserted { stack.append(state) }
        }
        return walk
    }

    @Test(
        arguments: [
            ([0], [1], 0), ([0], [1], 1), ([0], [1], 2), ([2], [2], 1), ([0], [0, 1], 0), ([0, 1], [1], 0),
        ] as [([Int], [Int], Int)])
    func everyInterleavingIsLinearizable(writes: [Int], reads: [Int], crashes: Int) throws {
        let began = ContinuousClock.now
        let model = try #require(SmallModel(writes: writes, reads: reads, crashes: crashes))
        let limit = 3_000_000
        let walk = SmallModelTests.walk(model, limit: limit)
        print(
            "small model, writes at \(writes), reads at \(reads), \(crashes) crashes: \(walk.states) states,"
                + " \(walk.ends) ends, \(walk.completed) with the change completed, \(ContinuousClock.now - began)")
        #expect(walk.states < limit, "the walk came to its end")
        if walk.counterexample != nil {
            var told = model
            told.story = []
            let story = SmallModelTests.walk(told, limit: limit).counterexample?.story ?? []
            for line in story { print(line) }
        }
        #expect(walk.counterexample.map(\.clients) == nil)
        #expect(walk.completed > 0)
    }

    /// The whole of two writes, a read and crashes has many millions of states: this goes as far as `KV_MODEL_STATES`
    /// allows.
    @Test(arguments: [1, 2])
    func twoWritesAndCrashesAsFarAsWalked(crashes: Int) throws {
        let limit = ProcessInfo.processInfo.environment["KV_MODEL_STATES"].flatMap { Int($0) } ?? 250_000
        let model = try #require(SmallModel(writes: [0, 1], reads: [1], crashes: crashes))
        let walk = SmallModelTests.walk(model, limit: limit)
        print("small model, two writes, a read and \(crashes) crashes: \(walk.states) states, \(walk.ends) ends")
        #expect(walk.counterexample.map(\.clients) == nil)
        #expect(walk.completed > 0)
    }

    @Test(arguments: SmallModel.Mutant.allCases)
    func mutantIsCaught(_ mutant: SmallModel.Mutant) throws {
        for (writes, reads, crashes) in [([0], [0, 1], 0), ([0], [0, 1], 1), ([0, 1], [1], 0), ([0, 1], [1], 1)] {
            let model = try #require(SmallModel(writes: writes, reads: reads, crashes: crashes))
            let walk = SmallModelTests.walk(model, mutant, limit: 500_000)
            if walk.counterexample != nil {
                print("small model: \(mutant) caught with \(writes) \(reads) \(crashes), \(walk.states) states")
                return
            }
        }
        Issue.record("\(mutant) was not caught")
    }
}
