// SPDX-License-Identifier: Apache-2.0

/// Leases on chores that one worker of a host is to do. They spare work and exclude nobody who was paused: whatever is
/// done under one must be harmless when it is done twice.
package struct LeaseStore: Sendable {
    private let control: ControlStore

    package init(control: ControlStore) { self.control = control }

    /// Somebody else has the lease by now.
    package struct Lost: Error {}

    /// Keeps a lease that was taken as long as the work takes, and gives the work up where somebody else has it.
    package func holding<Result: Sendable>(
        _ name: String, holder: String, timeToLive: Duration, _ work: @escaping @Sendable () async throws -> Result
    ) async throws -> Result {
        try await withThrowingTaskGroup(of: Result?.self) { group in
            group.addTask { try await work() }
            group.addTask {
                while true {
                    try await Task.sleep(for: timeToLive / 3)
                    // (memcached may not answer for a moment.)
                    guard (try? await acquire(name, holder: holder, timeToLive: timeToLive)) ?? true else {
                        throw Lost()
                    }
                }
            }
            defer { group.cancelAll() }
            guard case let result?? = try await group.next() else { throw CancellationError() }
            return result
        }
    }

    /// Takes the lease, or prolongs it; false while somebody else holds it.
    /// - Parameters:
    ///   - holder: names the worker; never the same for two.
    ///   - timeToLive: whole seconds, by memcached's clock, which ticks once a second.
    package func acquire(_ name: String, holder: String, timeToLive: Duration) async throws(ControlStore.Failure)
        -> Bool
    {
        let key = "lease.\(name)"
        let bytes = Array(holder.utf8)
        if let held = try await control.get(key) {
            guard held.bytes == bytes else { return false }
            if try await control.compareAndSwap(key, bytes, token: held.token, timeToLive: timeToLive) == .stored {
                return true
            }
        } else if try await control.add(key, bytes, timeToLive: timeToLive) {
            return true
        }
        // Somebody came in between: perhaps another task of this holder's, which took it for both.
        return try await control.get(key)?.bytes == bytes
    }
}
