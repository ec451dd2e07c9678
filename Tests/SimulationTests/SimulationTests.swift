// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// Random runs of a small cluster that changes its ring under faults. `KV_SIM_SEED` repeats one run and prints its
/// story, `KV_SIM_RUNS` sets how many are made.
@Suite(.serialized) struct SimulationTests {
    private static let environment = ProcessInfo.processInfo.environment

    @Test func noSeedLosesOrReordersAnything() {
        if let seed = SimulationTests.environment["KV_SIM_SEED"].flatMap({ UInt64($0) }) { return replay(seed) }
        let runs = SimulationTests.environment["KV_SIM_RUNS"].flatMap { UInt64($0) } ?? 3000
        let first = SimulationTests.environment["KV_SIM_FIRST"].flatMap { UInt64($0) } ?? 1
        let routes = Routes()
        let began = ContinuousClock.now
        var reached: [RareEvent: Int] = [:]
        var operations = 0
        var failures: [(seed: UInt64, text: String)] = []
        for seed in first..<first + runs {
            let verdict = Scenario(Options(seed: seed), routes).run()
            operations += verdict.operations
            reached.merge(verdict.reached, uniquingKeysWith: +)
            if let failure = verdict.failure {
                failures.append((seed, failure))
                print("KV_SIM_SEED=\(seed): \(failure)")
                if failures.count == 20 { break }
            }
        }
        print(
            "simulation: seeds \(first)…\(first + runs - 1), \(operations) operations, \(ContinuousClock.now - began)")
        for event in RareEvent.allCases { print("  \(reached[event] ?? 0) × \(event.rawValue)") }
        #expect(failures.isEmpty, "repeat with KV_SIM_SEED=\(failures.first?.seed ?? 0)")
        if runs >= 3000 { for event in RareEvent.allCases { #expect(reached[event] ?? 0 > 0, "\(event.rawValue)") } }
    }

    private func replay(_ seed: UInt64) {
        let mutant = SimulationTests.environment["KV_SIM_MUTANT"].flatMap { Mutant(rawValue: $0) }
        var options = Options(seed: seed, mutant: mutant)
        options.isTraced = true
        print("options: \(options)")
        let scenario = Scenario(options, Routes())
        let verdict = scenario.run()
        for line in verdict.trace { print(line) }
        for key in options.keys.indices {
            for line in scenario.story(of: key) { print(line) }
        }
        print("KV_SIM_SEED=\(seed): \(verdict.failure ?? "all is well")")
        #expect(verdict.failure == nil)
    }
}
