// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import TestSupport

/// One worker process of a host: what `Coordinator`, `LocalReplica`, `RingKeeper` and `Housekeeping` do, over simulated
/// time and the real value types.
final class Worker {
    struct View {
        let stamp: Stamp
        let document: RingDocument?
        let table: RoutingTable?
        let isFenced: Bool
        let acknowledgesNothing: Bool
    }

    private struct Parked {
        let deadline: Int
        let wake: (_ isLate: Bool) -> Void
    }

    unowned let host: Host
    unowned let world: World
    let slot: Int
    let process: Int
    private(set) var isAlive = true
    private var pausedUntil = 0
    var clock: HybridClock
    /// What this worker acts on.
    private(set) var view: View?
    /// The newest document that it has seen; outlives memcached.
    var document: RingDocument?
    /// See `RingKeeper`.
    var stood: RingDocument?
    private var underway: [Epoch: Int] = [:]
    private var parked: [Parked] = []
    var driver: Driver?
    var isRestoring = false
    var restoredGeneration: Generation?

    init(_ host: Host, slot: Int) {
        self.host = host
        self.world = host.world
        self.slot = slot
        self.process = host.world.nextProcess()
        self.clock = HybridClock(writer: UInt32(process))
    }

    var node: NodeID { host.node }

    func begin() {
        world.living.insert(process)
        followRing()
        after(world.random.pick(0...1000) * World.millisecond) { self.choresLater() }
        recoverLater()
        sweepParked()
    }

    func die() {
        isAlive = false
        world.living.remove(process)
        parked = []
        driver = nil
        view = nil
    }

    func pause(for time: Int) {
        world.note("worker \(slot) of \(node) is stopped for \(time)")
        pausedUntil = max(pausedUntil, world.now + time)
    }

    var isPaused: Bool { pausedUntil > world.now }

    /// Does something in this process after a while: later if it is stopped, never once it is dead.
    func after(_ delay: Int, _ body: @escaping () -> Void) {
        world.after(delay) { [weak self] in
            guard let self, isAlive else { return }
            if isPaused { after(pausedUntil - world.now, body) } else { body() }
        }
    }

    /// For a pair that was not there.
    func early() -> Version { clock.early(wallMicroseconds: host.wallMicroseconds) }

    func tick(after version: Version = .none) -> Version {
        clock.tick(wallMicroseconds: host.wallMicroseconds, after: version)
    }

    var reading: UInt64 { max(clock.last, host.wallMicroseconds << 12) }

    func merge(_ time: UInt64) {
        if !clock.merge(time, wallMicroseconds: host.wallMicroseconds) { world.reached(.clockAhead) }
    }

    // MARK: The ring

    private func followRing() {
        poll()
        after(100 * World.millisecond) { self.followRing() }
    }

    /// Looks at the stamp, adopts what is new, and tells the host how far this worker has let go.
    func poll() {
        guard !host.isHanging else { return }
        let memory = host.memory
        if let view, memory.stamp == view.stamp {
            post()
        } else {
            refresh()
        }
    }

    private func post() {
        guard let view, host.memory.stamp?.generation == view.stamp.generation else { return }
        register(min(view.stamp.epoch, underway.keys.min() ?? view.stamp.epoch))
    }

    func register(_ drained: Epoch) {
        host.memory.registry[slot] = Memory.Registration(process: process, drained: drained)
    }

    func adopt(_ next: View?) {
        view = next
        retryParked()
        if next != nil { after(world.random.pick(50...500)) { self.poll() } }
    }

    func begin(_ epoch: Epoch) { underway[epoch, default: 0] += 1 }

    func end(_ epoch: Epoch) {
        guard let count = underway[epoch] else { preconditionFailure("every end has its begin") }
        underway[epoch] = count > 1 ? count - 1 : nil
        if count == 1, epoch != view?.stamp.epoch { after(world.random.pick(50...500)) { self.poll() } }
    }

    // MARK: Waiting for the ring

    func park(until deadline: Int, _ wake: @escaping (_ isLate: Bool) -> Void) {
        parked.append(Parked(deadline: deadline, wake: wake))
    }

    func retryParked() {
        let ready = parked
        parked = []
        for operation in ready { operation.wake(false) }
    }

    private func sweepParked() {
        after(25 * World.millisecond) {
            if !self.parked.isEmpty {
                let late = self.parked.filter { $0.deadline <= self.world.now }
                self.parked.removeAll { $0.deadline <= self.world.now }
                for operation in late { operation.wake(true) }
            }
            self.sweepParked()
        }
    }

    // MARK: Other nodes

    /// Calls some worker of a node; `nil` where no answer comes in time.
    /// - Parameter mayRepeat: whether the message may arrive twice.
    func call<Answer>(
        _ target: NodeID, timeout: Int, mayRepeat: Bool,
        _ request: @escaping (Worker, @escaping (Answer?) -> Void) -> Void,
        completion: @escaping (_ answer: Answer?, _ wasSent: Bool) -> Void
    ) {
        var isOver = false
        func finish(_ answer: Answer?, _ wasSent: Bool) {
            guard !isOver else { return }
            isOver = true
            completion(answer, wasSent)
        }
        if target == node {
            return request(self) { finish($0, true) }
        }
        after(timeout) { finish(nil, true) }
        guard world.passes(node, target), let host = world.host(target) else { return }
        func deliver(_ delay: Int) {
            world.after(delay) { [weak self, unowned host] in
                guard let worker = host.anyWorker() else {
                    self?.after(100) { finish(nil, false) }
                    return
                }
                worker.after(0) { [weak self] in
                    request(worker) { [weak self] answer in
                        guard let self, world.passes(target, node) else { return }
                        after(world.networkDelay()) { finish(answer, true) }
                    }
                }
            }
        }
        deliver(world.networkDelay())
        if mayRepeat, world.options.slowMessagePercent > 0, world.random.chance(1) { deliver(world.networkDelay() * 3) }
    }
}
