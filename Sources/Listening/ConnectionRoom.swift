// SPDX-License-Identifier: Apache-2.0

private import Glibc
private import KeyValue

/// How many clients one worker has, whatever they speak, and whether there is room for another. Belongs to one event
/// loop.
package final class ConnectionRoom {
    package private(set) var count = 0
    /// Descriptors that the process may open can be the tighter bound: see `Limits.descriptorsKept`.
    private let limit: Int
    /// Who waits for room, by the listener.
    private var waiting: [ObjectIdentifier: () -> Void] = [:]

    package init(limit: Int = Limits.connectionsPerWorker) { self.limit = limit }

    package func enter() { count += 1 }

    package func leave() {
        count -= 1
        for tell in waiting.values { tell() }
    }

    var hasRoom: Bool { count < limit && count < ConnectionRoom.descriptorsForConnections }

    /// Has `tell` called whenever a connection has ended; nil: not any more.
    func onRoom(for listener: AnyObject, _ tell: (() -> Void)?) { waiting[ObjectIdentifier(listener)] = tell }

    /// Asked each time, for it may be changed while the process runs.
    private static var descriptorsForConnections: Int {
        var descriptors = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &descriptors) == 0 else { return .max }
        let count = Int(clamping: descriptors.rlim_cur)
        return count - Limits.descriptorsKept(of: count)
    }
}
