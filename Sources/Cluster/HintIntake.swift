// SPDX-License-Identifier: Apache-2.0

package import KeyValue
package import NIOCore

/// A worker's part in taking hints: sees to it that the host's board says so before a hint is stored, so that none is
/// ever forgotten, and that the host takes no more than it may. Belongs to one event loop.
package final class HintIntake {
    /// Hints, and bytes of their envelopes.
    package struct Amount: Hashable, Sendable, Codable {
        package var count = 0
        package var bytes = 0

        package init(count: Int = 0, bytes: Int = 0) {
            self.count = count
            self.bytes = bytes
        }
    }

    /// What this worker did since it last told.
    package struct Report: Hashable, Sendable {
        package var taken = Amount()
        package var refused = 0

        package init() {}
    }

    /// Marks the host as one that may have hints, and says how many more it may take; nil where that failed.
    package var mark: (Report, @escaping (Amount?) -> Void) -> Void = { _, done in done(nil) }

    /// A mark is good for so long.
    package static let markTime = TimeAmount.milliseconds(HintBoard.markMilliseconds)

    private var markEnd = NIODeadline.uptimeNanoseconds(0)
    private var isMarking = false
    private var room = Amount()
    private var report = Report()
    private var waiting: [() -> Void] = []

    package init() {}

    /// Calls back once hints may be taken, or it is known that none can be; `refusal` tells which.
    package func prepare(_ proceed: @escaping () -> Void) {
        guard markEnd <= .now(), waiting.count < Limits.waitingOperations else { return proceed() }
        waiting.append(proceed)
        if !isMarking { beginMark() }
    }

    /// Tells the board what was taken, unless it knows. To be called now and then.
    package func tell() {
        if report != Report(), !isMarking { beginMark() }
    }

    private func beginMark() {
        isMarking = true
        let begin = NIODeadline.now()
        let told = report
        report = Report()
        mark(told) { room in
            self.isMarking = false
            if let room {
                self.room = room
                self.markEnd = begin + HintIntake.markTime
            } else {
                self.report.taken.count += told.taken.count
                self.report.taken.bytes += told.taken.bytes
                self.report.refused += told.refused
            }
            let ready = self.waiting
            self.waiting = []
            for proceed in ready { proceed() }
        }
    }

    /// Why a hint is not taken; where it is, counts it. To be asked in the tick in which `prepare` called back.
    package func refusal(of operation: Operation) -> OperationFailure? {
        guard markEnd > .now() else { return .notApplied(.memcachedUnavailable) }
        guard room.count > 0, room.bytes >= operation.weight else {
            report.refused += 1
            return .notApplied(.overloaded)
        }
        room.count -= 1
        room.bytes -= operation.weight
        report.taken.count += 1
        report.taken.bytes += operation.weight
        return nil
    }
}
