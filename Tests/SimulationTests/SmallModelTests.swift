// SPDX-License-Identifier: Apache-2.0

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

    @Test(arguments: 0...2)
    func everyInterleavingIsLinearizable(crashes: Int) throws {
        let coordinators = [2, 0, 1]
        let began = ContinuousClock.now
        let model = try #require(SmallModel(coordinators: coordinators, crashes: crashes))
        let walk = SmallModelTests.walk(model, limit: 6_000_000)
        print(
            "small model, coordinators \(coordinators), \(crashes) crashes: \(walk.states) states, \(walk.ends) ends,"
                + " \(walk.completed) with the change completed, \(ContinuousClock.now - began)")
        #expect(walk.states < 6_000_000, "the walk came to its end")
        #expect(walk.counterexample == nil)
        #expect(walk.completed > 0)
    }

    @Test(arguments: SmallModel.Mutant.allCases)
    func mutantIsCaught(_ mutant: SmallModel.Mutant) throws {
        for coordinators in [[2, 2, 1], [2, 0, 2], [0, 1, 2]] {
            let model = try #require(SmallModel(coordinators: coordinators, crashes: 1))
            let walk = SmallModelTests.walk(model, mutant, limit: 400_000)
            if walk.counterexample != nil {
                print("small model: \(mutant) caught after \(walk.states) states")
                return
            }
        }
        Issue.record("\(mutant) was not caught")
    }
}
