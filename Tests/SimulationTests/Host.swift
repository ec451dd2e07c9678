// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import TestSupport

/// A machine: one memcached, a disk with the ring document, and some workers.
final class Host {
    unowned let world: World
    let node: NodeID
    let skewMicroseconds: Int
    private(set) var memory = Memory()
    var disk: RingDocument?
    private(set) var workers: [Worker] = []
    /// memcached answers nothing until then; what is sent to it meanwhile it does afterwards.
    private(set) var hangsUntil = 0
    /// Up to which epoch this host has told a driver that it has adopted the ring.
    private(set) var adoptedEpoch = Epoch.none
    /// Up to which one a driver has heard what it says to that.
    private(set) var heardEpoch = Epoch.none
    private let workerCount: Int

    init(_ world: World, _ node: NodeID, skewMicroseconds: Int, workers: Int) {
        self.world = world
        self.node = node
        self.skewMicroseconds = skewMicroseconds
        self.workerCount = workers
    }

    /// A ring installed by an operator, and workers that stand on it.
    func begin(with document: RingDocument) {
        memory.stamp = Stamp(epoch: document.epoch, generation: Generation(world.random.next()))
        memory.record = HostRingRecord(document: document)
        disk = document
        for slot in 0..<workerCount { start(slot) }
    }

    private func start(_ slot: Int) {
        let worker = Worker(self, slot: slot)
        workers.removeAll { $0.slot == slot }
        workers.append(worker)
        worker.begin()
    }

    var wallMicroseconds: UInt64 { UInt64(1_800_000_000_000_000 + world.now + skewMicroseconds) }

    func anyWorker() -> Worker? {
        let living = workers.filter(\.isAlive)
        return living.isEmpty ? nil : world.random.pick(living)
    }

    /// Does something at this memory after a while, later if it hangs. Whoever asked may be dead by then; `broken` is
    /// called instead if the memory is gone.
    func atMemory(_ delay: Int, broken: @escaping () -> Void = {}, _ body: @escaping (Memory) -> Void) {
        let memory = memory
        func arrive() {
            guard self.memory === memory else { return broken() }
            if hangsUntil > world.now {
                world.after(hangsUntil - world.now + world.random.pick(1...3000), arrive)
            } else {
                body(memory)
            }
        }
        world.after(delay, arrive)
    }

    func adopted(_ epoch: Epoch) { adoptedEpoch = max(adoptedEpoch, epoch) }

    func wasHeard(standingOn epoch: Epoch) { heardEpoch = max(heardEpoch, epoch) }

    /// Switched off, for as long as nobody switches it on again.
    private(set) var isGone = false

    var isHanging: Bool { hangsUntil > world.now }

    // MARK: Faults

    func kill(_ worker: Worker) {
        guard worker.isAlive else { return }
        world.note("kill worker \(worker.slot) of \(node)")
        worker.die()
        world.after(world.random.pick(20...400) * World.millisecond) { [unowned self] in
            if !isGone, !workers.contains(where: { $0.slot == worker.slot && $0.isAlive }) { start(worker.slot) }
        }
    }

    func goForGood() {
        world.note("\(node) is gone for good")
        isGone = true
        for worker in workers { worker.die() }
    }

    /// The one that was given up for good is switched on after all, as it was.
    func comeBack() {
        guard isGone else { return }
        world.note("\(node) is back after all")
        isGone = false
        for slot in 0..<workerCount { start(slot) }
    }

    func hang(for time: Int) {
        world.note("memcached of \(node) hangs for \(time)")
        hangsUntil = max(hangsUntil, world.now + time)
    }

    func restartEmpty() {
        world.note("memcached of \(node) comes back empty")
        world.isLosing(memory, of: self)
        if let transition = world.newest?.transition, transition.abortReason == nil {
            let plan = Set(transition.to.nodes).subtracting(transition.from.nodes).isEmpty
            let isGiver = plan ? !transition.to.contains(node) : transition.from.contains(node)
            switch (transition.step, isGiver) {
            case (.copying, true): world.reached(.loserEmptiedWhileCopying)
            case (.copying, false): world.reached(.gainerEmptiedWhileCopying)
            case (.crossing, true): world.reached(.loserEmptiedWhileCrossing)
            case (.crossing, false): world.reached(.gainerEmptiedWhileCrossing)
            case (.settling, false): world.reached(.gainerEmptiedWhileSettling)
            case (.settling, true), (.retreating, _), (.cleaning, _): break
            }
        }
        memory = Memory()
        hangsUntil = 0
    }

    /// A new machine takes its place: with nothing in memory or on disk.
    func replaceMachine() {
        world.note("\(node) is a new machine")
        for worker in workers { kill(worker) }
        restartEmpty()
        disk = nil
    }

    func dismantle() {
        for worker in workers { worker.die() }
        workers = []
    }
}
