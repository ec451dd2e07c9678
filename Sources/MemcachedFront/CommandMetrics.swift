// SPDX-License-Identifier: Apache-2.0

package import CoreMetrics
internal import NIOCore

/// What is counted of memcached's protocol, by way of swift-metrics: each command once, when its answer goes out, or
/// when it is done where it wants none. Belongs to the front's event loop.
package final class CommandMetrics {
    private let factory: any MetricsFactory
    // (`unchecked`: see `CommandHandler`.)
    @exclusivity(unchecked) private var timers: [Timer?]
    private let accepted: Counter
    /// Of this worker, for `stats`: by verb and outcome.
    @exclusivity(unchecked) private var counts: [Int]
    private(set) var acceptedCount = 0

    private static let outcomes = CommandAnswer.Outcome.allCases.count

    /// - Parameter factory: nil: the process's.
    package init(factory: (any MetricsFactory)? = nil) {
        let factory = factory ?? MetricsSystem.factory
        let size = Command.Verb.allCases.count * CommandMetrics.outcomes
        self.factory = factory
        self.timers = Array(repeating: nil, count: size)
        self.counts = Array(repeating: 0, count: size)
        self.accepted = Counter(label: "kvserver_command_connections_accepted_total", factory: factory)
        // (So that a rate shows the first of them.)
        for (verb, outcome) in [(Command.Verb.get, CommandAnswer.Outcome.hit), (.get, .miss), (.set, .done)] {
            timers[index(verb, outcome)] = timer(verb, outcome)
        }
    }

    func accept() {
        acceptedCount += 1
        accepted.increment()
    }

    /// - Parameter since: when all of the command was here.
    func answered(_ verb: Command.Verb, _ outcome: CommandAnswer.Outcome, since: NIODeadline) {
        let index = index(verb, outcome)
        counts[index] += 1
        let timer: Timer
        if let made = timers[index] {
            timer = made
        } else {
            timer = self.timer(verb, outcome)
            timers[index] = timer
        }
        timer.recordNanoseconds((NIODeadline.now() - since).nanoseconds)
    }

    /// How many commands ended so in this worker; nil: in any way.
    func count(_ verbs: [Command.Verb], _ outcome: CommandAnswer.Outcome? = nil) -> Int {
        verbs.reduce(0) { sum, verb in
            let outcomes = outcome.map { [$0] } ?? CommandAnswer.Outcome.allCases
            return sum + outcomes.reduce(0) { $0 + counts[index(verb, $1)] }
        }
    }

    private func index(_ verb: Command.Verb, _ outcome: CommandAnswer.Outcome) -> Int {
        Int(verb.rawValue) * CommandMetrics.outcomes + outcome.rawValue
    }

    private func timer(_ verb: Command.Verb, _ outcome: CommandAnswer.Outcome) -> Timer {
        Timer(
            label: "kvserver_command_duration_seconds",
            dimensions: [("command", verb.name), ("outcome", outcome.label)], factory: factory)
    }
}
