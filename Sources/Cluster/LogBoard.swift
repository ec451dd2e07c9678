// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
package import Memcached

/// Where the workers of a host tell each other how their logs are: a control key a worker slot. Losing them loses
/// nothing but what `/status` shows.
package struct LogBoard: Sendable {
    private static let interval = Duration.milliseconds(1000)

    private let control: ControlStore
    private let slot: Int

    package init(control: ControlStore, slot: Int) {
        self.control = control
        self.slot = slot
    }

    private static func key(_ slot: Int) -> String { "log.\(slot)" }

    /// Of these workers; nothing of one that has not said anything.
    package func conditions(of slots: some Sequence<Int>) async -> [PairLog.Condition] {
        let values = (try? await control.getMany(slots.map(LogBoard.key))) ?? [:]
        return values.values.compactMap { try? JSONDecoder().decode(PairLog.Condition.self, from: Data($0.bytes)) }
    }

    /// Tells how the log is whenever that changes, until it is cancelled.
    package func follow(_ log: PairLog) async {
        var told: PairLog.Condition?
        repeat {
            let condition = log.condition
            if condition != told, (try? await control.show(LogBoard.key(slot), condition)) == true { told = condition }
        } while (try? await Task.sleep(for: LogBoard.interval)) != nil
    }
}
