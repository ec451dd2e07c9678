// SPDX-License-Identifier: Apache-2.0

import Testing

/// Each planted mistake is noticed within a bounded number of seeds: without this, a simulation that finds nothing
/// would prove nothing.
@Suite(.serialized) struct MutantTests {
    private static let mostSeeds: UInt64 = 20_000

    @Test(arguments: Mutant.allCases)
    func isCaught(_ mutant: Mutant) {
        let routes = Routes()
        let began = ContinuousClock.now
        for seed in mutant.firstSeed..<mutant.firstSeed + MutantTests.mostSeeds {
            let verdict = Scenario(Options(seed: seed, mutant: mutant), routes).run()
            guard let failure = verdict.failure else { continue }
            print("mutant \(mutant.rawValue): seed \(seed), \(ContinuousClock.now - began): \(failure)")
            return
        }
        Issue.record("\(mutant.rawValue) was not caught in \(MutantTests.mostSeeds) seeds")
    }
}
