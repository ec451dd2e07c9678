// SPDX-License-Identifier: Apache-2.0

/// The worker processes that live, or have not been waited for, by slot.
struct WorkerTable: ~Copyable {
    private var processes: [Entry] = []

    /// (A dictionary can't hold what can't be copied; the class is the box for it, and has one owner.)
    private final class Entry {
        let slot: Int
        let process: WorkerProcess

        init(_ slot: Int, _ process: consuming WorkerProcess) {
            self.slot = slot
            self.process = process
        }
    }

    mutating func insert(_ process: consuming WorkerProcess, at slot: Int) {
        precondition(!processes.contains { $0.slot == slot }, "a slot is given away once its process is gone")
        processes.append(Entry(slot, process))
    }

    /// - Returns: the slot of the process that is gone; nil where it is none of ours.
    mutating func remove(_ processID: Int32) -> Int? {
        guard let index = processes.firstIndex(where: { $0.process.processID == processID }) else { return nil }
        return processes.remove(at: index).slot
    }

    /// What each worker has said since the last time, if anything.
    func readAll() -> [(slot: Int, sign: WorkerProcess.Sign)] {
        processes.compactMap { entry in
            let sign = entry.process.read()
            return sign == .nothing ? nil : (entry.slot, sign)
        }
    }

    func announceLeave(_ slot: Int) { entry(slot)?.process.announceLeave() }

    func signal(_ slot: Int, _ number: Int32) { entry(slot)?.process.signal(number) }

    private func entry(_ slot: Int) -> Entry? { processes.first { $0.slot == slot } }
}
