// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
private import Glibc
package import HashRing
package import Memcached

/// Which worker processes this host has, and up to which epoch each has let go of older ones: one control key a worker
/// slot.
///
/// A worker registers before it reads the ring. Whoever writes a new ring and then reads the registry therefore sees
/// every worker that may still act on the old one.
package struct WorkerRegistry: Sendable {
    /// Slots that the supervisor hands out.
    package static let slots = 64

    package struct Entry: Codable, Sendable, Hashable {
        package let pid: Int32
        /// The process's start time in clock ticks since boot: tells it from a later one with the same pid.
        package let startTicks: UInt64
        /// Nothing that it does began under an older epoch.
        package var drained: Epoch

        fileprivate var isAlive: Bool { WorkerRegistry.startTicks(of: pid) == startTicks }
    }

    private let control: ControlStore
    private let slot: Int

    package init(control: ControlStore, slot: Int) {
        precondition((0..<WorkerRegistry.slots).contains(slot), "the supervisor hands out these slots only")
        self.control = control
        self.slot = slot
    }

    private static func key(_ slot: Int) -> String { "worker.\(slot)" }

    package enum Failure: Error, Sendable {
        /// A worker whose supervisor died is still at work under this number.
        case slotTaken(pid: Int32)
    }

    /// Says how far this worker is: within the process, the last word counts.
    package func post(drained: Epoch) async throws {
        let entry = Entry(pid: getpid(), startTicks: WorkerRegistry.startTicks(of: getpid()) ?? 0, drained: drained)
        let bytes = Array(try JSONEncoder().encode(entry))
        for _ in 0..<8 {
            if let held = try await control.get(WorkerRegistry.key(slot)) {
                if let other = WorkerRegistry.entry(held.bytes), other.pid != getpid(), other.isAlive {
                    throw Failure.slotTaken(pid: other.pid)
                }
                if case .stored = try await control.compareAndSwap(WorkerRegistry.key(slot), bytes, token: held.token) {
                    return
                }
            } else if try await control.add(WorkerRegistry.key(slot), bytes) {
                return
            }
        }
        throw RingKeeper.Failure.contended
    }

    /// This host's living workers, by slot.
    package func living() async throws -> [Int: Entry] {
        let keys = (0..<WorkerRegistry.slots).map(WorkerRegistry.key)
        let values = try await control.getMany(keys)
        var entries: [Int: Entry] = [:]
        for (slot, key) in keys.enumerated() {
            guard let value = values[key], let entry = WorkerRegistry.entry(value.bytes), entry.isAlive else {
                continue
            }
            entries[slot] = entry
        }
        return entries
    }

    private static func entry(_ bytes: [UInt8]) -> Entry? {
        try? JSONDecoder().decode(Entry.self, from: Data(bytes))
    }

    /// Field 22 of /proc/PID/stat; nil where there is no such process, or only its zombie.
    fileprivate static func startTicks(of pid: Int32) -> UInt64? {
        guard let file = fopen("/proc/\(pid)/stat", "r") else { return nil }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1024)
        let count = fread(&bytes, 1, bytes.count, file)
        let text = String(decoding: bytes[..<count], as: UTF8.self)
        // The command's name, in parentheses, may hold anything.
        guard let name = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: name)...].split(separator: " ")
        guard fields.count > 19, fields[0] != "Z" else { return nil }
        return UInt64(fields[19])
    }
}
