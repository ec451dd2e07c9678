// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import TestSupport

extension Worker {
    /// A batch on this host's pairs, as `LocalReplica` and its lanes do it: one read of all keys and the stamp, then
    /// each write by `cas` or `add`. Who is late gives up; what was sent to memcached by then may land all the same.
    func submit(_ operations: [KeyValue.Operation], deadline: Int, completion: @escaping ([Outcome]) -> Void) {
        guard let expected = view?.stamp else { return completion(operations.map { _ in .failed(.staleRing) }) }
        Flight(self, operations, expected, deadline: deadline, completion).begin()
    }

    func ringLooksStale() { after(world.random.pick(50...500)) { self.poll() } }

    private final class Flight {
        private let worker: Worker
        private let world: World
        private let operations: [KeyValue.Operation]
        private let expected: Stamp
        private let deadline: Int
        private var completion: (([Outcome]) -> Void)?
        private var outcomes: [Outcome] = []
        private var isStoring = false

        init(
            _ worker: Worker, _ operations: [KeyValue.Operation], _ expected: Stamp, deadline: Int,
            _ completion: @escaping ([Outcome]) -> Void
        ) {
            self.worker = worker
            self.world = worker.world
            self.operations = operations
            self.expected = expected
            self.deadline = deadline
            self.completion = completion
        }

        private var isOver: Bool { completion == nil }

        func begin() {
            worker.begin(expected.epoch)
            worker.after(deadline + 20 * World.millisecond - world.now) { self.giveUp() }
            let keys = operations.map(\.key)
            worker.host.atMemory(world.random.pick(20...200), broken: { self.breakOff() }) { memory in
                let items = keys.map { memory.pairs[$0] }
                self.worker.host.atMemory(self.world.random.pick(1...30), broken: { self.breakOff() }) { memory in
                    let stamp = memory.stamp
                    self.worker.after(self.world.random.pick(10...60)) { self.readDone(items, stamp) }
                }
            }
        }

        private func finish(_ all: [Outcome]) {
            guard let completion else { return }
            self.completion = nil
            // (The answer first: what follows from it may begin under the same epoch.)
            completion(all)
            worker.end(expected.epoch)
        }

        /// The rest was not sent, the write on its way is anybody's guess.
        private func finishRest(_ reason: OperationFailure.Reason) {
            while outcomes.count < operations.count {
                let isUnknown = isStoring && operations[outcomes.count].isWrite
                outcomes.append(.failed(isUnknown ? .outcomeUnknown(reason) : .notApplied(reason)))
                isStoring = false
            }
            finish(outcomes)
        }

        private func giveUp() { if !isOver { finishRest(.memcachedUnavailable) } }

        private func breakOff() { worker.after(10) { self.giveUp() } }

        private func readDone(_ items: [Memory.Item?], _ stamp: Stamp?) {
            guard !isOver else { return }
            guard stamp == expected || world.has(.noStampCheck) else {
                worker.ringLooksStale()
                return finish(operations.map { _ in .failed(.staleRing) })
            }
            next(items)
        }

        private func next(_ items: [Memory.Item?]) {
            let index = outcomes.count
            guard index < operations.count else { return finish(outcomes) }
            switch operations[index] {
            case .read: done(.record(items[index]?.envelope), items)
            case .readVersion, .heldVersion: done(.version(items[index]?.envelope.version ?? .none), items)
            case .stamp, .apply, .replace: write(operations[index], over: items[index], items)
            }
        }

        private func done(_ outcome: Outcome, _ items: [Memory.Item?]) {
            outcomes.append(outcome)
            next(items)
        }

        private func write(_ operation: KeyValue.Operation, over held: Memory.Item?, _ items: [Memory.Item?]) {
            let heldVersion = held?.envelope.version ?? .none
            let decision: Apply
            switch operation {
            case .stamp(_, let envelope): decision = .stamped(envelope, with: worker.tick(after: heldVersion))
            case .apply(_, let envelope):
                decision = world.has(.noVersionCheck) ? .store(envelope) : .fixed(envelope, over: heldVersion)
            case .replace(_, let envelope, over: let expected):
                decision =
                    world.has(.noConditionAtDecider)
                    ? .fixed(envelope, over: heldVersion) : .replacing(envelope, over: expected, held: heldVersion)
            case .read, .readVersion, .heldVersion: return
            }
            switch decision {
            case .keep(let newest):
                if case .replace = operation { return done(.failed(.preconditionFailed(held: newest)), items) }
                done(.applied(newest: newest), items)
            case .store(let envelope):
                guard deadline > world.now else { return done(.failed(.notApplied(.deadline)), items) }
                store(envelope, operation, token: held?.token, items)
            }
        }

        private func store(_ envelope: Envelope, _ operation: KeyValue.Operation, token: Int?, _ items: [Memory.Item?])
        {
            isStoring = true
            let isSlow = world.random.chance(world.options.slowStorePercent) && !world.isHealing
            let delay = isSlow ? world.random.pick(10...2500) * World.millisecond : world.random.pick(20...200)
            worker.host.atMemory(delay, broken: { self.breakOff() }) { memory in
                let isStored = memory.store(envelope, under: operation.key, token: token)
                if isStored { self.landed(operation.key, memory) }
                let again = memory.pairs[operation.key]
                let stamp = memory.stamp
                self.worker.after(self.world.random.pick(10...60)) {
                    guard !self.isOver else { return }
                    self.isStoring = false
                    if isStored {
                        if case .stamp = operation { return self.done(.stored(envelope.version), items) }
                        return self.done(.applied(newest: envelope.version), items)
                    }
                    self.world.reached(.lostRace)
                    guard stamp == self.expected || self.world.has(.noStampCheck) else {
                        return self.done(.failed(.staleRing), items)
                    }
                    self.write(operation, over: again, items)
                }
            }
        }

        private func landed(_ key: StoredKey, _ memory: Memory) {
            if !worker.isAlive { world.reached(.storeAfterWorkerDied) }
            guard let epoch = memory.stamp?.epoch, epoch > expected.epoch else { return memory.stray.subtract([key]) }
            memory.stray.insert(key)
            if worker.host.adoptedEpoch >= epoch { world.reached(.lateStoreAfterAdoption) }
        }
    }
}
