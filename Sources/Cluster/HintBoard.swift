// SPDX-License-Identifier: Apache-2.0

private import KeyValue
package import Memcached

/// What the workers of a host tell each other about the hints that it keeps: one control key. It is in the same memory
/// as the hints, and is lost with them.
package struct HintBoard: Sendable {
    package struct Entry: Codable, Hashable, Sendable {
        /// When some worker last said that it may take hints, on the monotonic clock, which all processes share.
        package var markedMilliseconds: Int64 = 0
        /// When the last pass over all hints began; nil before the first.
        package var passMilliseconds: Int64?
        /// What that pass has left.
        package var left = HintIntake.Amount()
        /// What was taken since; one that was overwritten is counted again.
        package var taken = HintIntake.Amount()
        package var delivered = 0
        package var dropped = 0
        package var refused = 0
        /// Why the last pass did not end.
        package var error: String?

        package init() {}

        package var waiting: HintIntake.Amount {
            .init(count: left.count + taken.count, bytes: left.bytes + taken.bytes)
        }

        /// What may still be taken.
        package var room: HintIntake.Amount {
            .init(count: max(Limits.hints - waiting.count, 0), bytes: max(Limits.hintBytes - waiting.bytes, 0))
        }

        /// Whether there may be hints: some were left, or taken since the last pass began, or just before.
        package var mayHaveHints: Bool {
            guard let pass = passMilliseconds else { return true }
            return waiting.count > 0 || markedMilliseconds + HintBoard.settleMilliseconds > pass
        }

        package mutating func marked(_ report: HintIntake.Report, at now: Int64) {
            markedMilliseconds = max(markedMilliseconds, now)
            taken.count += report.taken.count
            taken.bytes += report.taken.bytes
            refused += report.refused
        }

        /// - Parameter before: as it was when the pass began.
        package mutating func passed(_ pass: HintCount, since before: Entry, at begin: Int64) {
            passMilliseconds = begin
            left = pass.left
            taken.count = max(taken.count - before.taken.count, 0)
            taken.bytes = max(taken.bytes - before.taken.bytes, 0)
            delivered += pass.delivered
            dropped += pass.dropped
            error = nil
        }

        package mutating func failed(_ pass: HintCount, _ reason: String) {
            delivered += pass.delivered
            dropped += pass.dropped
            error = reason
        }
    }

    /// A worker that takes hints says so again after this time.
    package static let markMilliseconds: Int64 = 1000
    /// So long after a mark the last hint that it covers may be stored: the mark's own time, a batch's, and some more.
    package static let settleMilliseconds = markMilliseconds + Int64(Limits.countedMilliseconds) + 2000

    private static let key = "hints"

    private let control: ControlStore

    package init(control: ControlStore) { self.control = control }

    /// Nil where this memory never had any.
    package func entry() async -> Entry? { await control.shown(HintBoard.key) }

    /// - Returns: what it is now; nil where others changed it again and again.
    package func update(_ change: @Sendable (inout Entry) -> Void) async throws -> Entry? {
        try await control.change(HintBoard.key) { held in
            var entry = held ?? Entry()
            change(&entry)
            return entry
        }
    }
}
