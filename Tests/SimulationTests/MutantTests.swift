// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// Each planted mistake is noticed within a bounded number of seeds: without this, a simulation that finds nothing
/// would prove nothing.
@Suite(.serialized) struct MutantTests {
    private static let mostSeeds: UInt64 = 20_000

    /// `KV_SIM_MUTANT` names the one to be searched for.
    private static let mutants = Mutant.allCases.filter { mutant in
        ProcessInfo.processInfo.environment["KV_SIM_MUTANT"].map { $0 == mutant.rawValue } ?? true
    }

    @Test(arguments: MutantTests.mutants)
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
