// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import TestSupport

/// This host's part of a ring change: as `JobRunner` and `JobWork` do it.
extension Worker {
    typealias Job = RingTransitionStateMachine.Job

    struct JobAnswer {
        enum State { case running, done, failed, overtaken }
        let state: State
        var report: RingTransitionStateMachine.JobReport?
        var generation: Generation?
    }

    /// Starts the job unless it runs, or is done; says how far it is.
    func job(
        _ kind: JobKind, _ document: RingDocument, changeID: String, _ reply: @escaping (JobAnswer?) -> Void
    ) {
        learn(document)
        host.atMemory(world.random.pick(100...600), broken: { self.after(10) { reply(nil) } }) { memory in
            guard let stamp = memory.stamp, let known = memory.record?.document else {
                return self.after(10) { reply(nil) }
            }
            var answer = self.request(kind, document, changeID, known, stamp, memory)
            answer.generation = stamp.generation
            self.after(50) { reply(answer) }
        }
    }

    private func request(
        _ kind: JobKind, _ document: RingDocument, _ changeID: String, _ known: RingDocument, _ stamp: Stamp,
        _ memory: Memory
    ) -> JobAnswer {
        guard known.epoch == document.epoch else { return JobAnswer(state: .overtaken) }
        var checkpoint: (slot: UInt16, gainers: [RingTransition.Fence])?
        var copied: Memory.Copied?
        let held = memory.jobs[kind.recordKey]
        if let record = held, record.changeID == changeID, record.generation == stamp.generation,
            kind == .change(.verify), record.kind != .change(.clean)
        {
            copied = record.copied
        }
        if let record = held, record.changeID == changeID, record.kind == kind, record.epoch == document.epoch,
            record.generation == stamp.generation
        {
            if let report = record.report { return JobAnswer(state: .done, report: report) }
            if let failedAt = record.failedAt {
                if world.now - failedAt < 200 * World.millisecond { return JobAnswer(state: .failed) }
            } else if world.now - record.beat < 1500 * World.millisecond {
                return JobAnswer(state: .running)
            } else {
                world.reached(.jobTakenOver)
            }
            checkpoint = record.checkpoint
            if checkpoint != nil { copied = record.copied }
        }
        if kind == .change(.copy), copied == nil { copied = Memory.Copied(through: memory.tokens) }
        let run = world.nextName()
        memory.jobs[kind.recordKey] = Memory.JobRecord(
            changeID: changeID, kind: kind, epoch: document.epoch, generation: stamp.generation, run: run,
            beat: world.now, checkpoint: checkpoint, copied: copied)
        after(50) {
            JobRun(
                self, kind, known, Stamp(epoch: document.epoch, generation: stamp.generation), run, checkpoint, copied
            ).begin()
        }
        return JobAnswer(state: .running)
    }
}

private final class JobRun {
    private let worker: Worker
    private let world: World
    private let kind: JobKind
    private let job: Worker.Job
    private let document: RingDocument
    private var stamp: Stamp
    private let name: String
    private let checkpoint: (slot: UInt16, gainers: [RingTransition.Fence])?
    private let copied: Memory.Copied?
    private var memories: [RingTransition.Fence] = []
    private var gainers: [NodeID] = []
    private var gainersOf: (Slot) -> [NodeID] = { _ in [] }
    private var comparesFirst: (StoredKey) -> Bool = { _ in false }
    private var question: (StoredKey) -> KeyValue.Operation = { .readVersion($0) }
    private var isOver = false

    init(
        _ worker: Worker, _ kind: JobKind, _ document: RingDocument, _ stamp: Stamp, _ name: String,
        _ checkpoint: (slot: UInt16, gainers: [RingTransition.Fence])?, _ copied: Memory.Copied?
    ) {
        self.worker = worker
        self.world = worker.world
        self.kind = kind
        if case .change(let job) = kind { self.job = job } else { self.job = .copy }
        self.document = document
        self.stamp = stamp
        self.name = name
        self.checkpoint = checkpoint
        self.copied = copied
    }

    func begin() {
        beat()
        if job == .clean { return clean() }
        if case .repair(let repair) = kind { return self.repair(repair.target) }
        guard let transition = document.transition else { return end(nil) }
        let plan = MovePlan(transition, replicas: document.replicas)
        gainersOf = { [node = worker.node] in plan.gainers(of: $0, from: node) }
        let comparesAll = job == .verify || plan.moves.contains(where: \.isCatchUp)
        comparesFirst = { _ in comparesAll }
        let moving = Set(world.options.keys.filter { !gainersOf($0.slot).isEmpty })
        gainers = Set(plan.moves.filter { $0.losers.contains(worker.node) }.flatMap(\.gainers))
            .subtracting([worker.node]).sorted()
        generations { memories in
            guard let memories else { return self.end(nil) }
            self.memories = memories
            var lowest = 0
            if let checkpoint = self.checkpoint, checkpoint.gainers == memories {
                lowest = Int(checkpoint.slot) + 1
                self.world.reached(.jobResumed)
            }
            let isIdle = self.world.has(.noCopy) || (self.job == .verify && self.world.has(.noVerify))
            let known = self.job == .verify && self.copied?.gainers == memories ? self.copied?.through ?? 0 : 0
            if known > 0 { self.world.reached(.verifySkipped) }
            self.scan { keys, memory in
                keys.filter {
                    !isIdle && Int($0.slot.value) >= lowest && moving.contains($0)
                        && memory.pairs[$0].map { $0.token > known } ?? false
                }
            } then: { keys in
                self.stream(keys.sorted { $0.slot < $1.slot })
            }
        }
    }

    /// Gives another replica, in a memory that was lost, what this one holds of their slots.
    private func repair(_ target: RingTransition.Fence) {
        guard let now = worker.view?.stamp, now.epoch == stamp.epoch, now.generation == stamp.generation else {
            return end(nil)
        }
        stamp = now
        memories = [target]
        gainers = [target.node]
        gainersOf = { _ in [target.node] }
        comparesFirst = {
            RefillPlan.firstSource(of: $0.slot, for: target.node, in: self.document) != self.worker.node
        }
        question = { .heldVersion($0) }
        scan { keys, _ in
            keys.filter { key in
                let members = RefillPlan.group(of: key.slot, in: self.document).members
                return members.contains(self.worker.node) && members.contains(target.node)
            }
        } then: { keys in
            // What is sent blindly goes first.
            let sorted = keys.sorted { $0.slot < $1.slot }
            self.stream(sorted.filter { !self.comparesFirst($0) } + sorted.filter(self.comparesFirst))
        }
    }

    /// The record belongs to whoever wrote its name last.
    private func updateRecord(_ change: (inout Memory.JobRecord) -> Void) -> Bool {
        guard !worker.host.isHanging, var record = worker.host.memory.jobs[kind.recordKey] else { return true }
        guard record.run == name else { return false }
        change(&record)
        worker.host.memory.jobs[kind.recordKey] = record
        return true
    }

    private func beat() {
        worker.after(200 * World.millisecond) {
            guard !self.isOver else { return }
            guard self.updateRecord({ $0.beat = self.world.now }) else {
                self.isOver = true
                return
            }
            self.beat()
        }
    }

    private func end(_ report: RingTransitionStateMachine.JobReport?) {
        guard !isOver else { return }
        isOver = true
        _ = updateRecord {
            $0.beat = world.now
            $0.report = report
            if kind == .change(.copy), let report {
                let isLate = world.has(.notesCopiedLate)
                let through = isLate ? worker.host.memory.tokens : $0.copied?.through ?? 0
                $0.copied = Memory.Copied(through: through, gainers: report.gainers)
            }
            if report == nil { $0.failedAt = world.now }
        }
    }

    private func scan(
        _ choose: @escaping ([StoredKey], Memory) -> [StoredKey], then body: @escaping ([StoredKey]) -> Void
    ) {
        worker.host.atMemory(world.random.pick(500...5000), broken: { self.worker.after(10) { self.end(nil) } }) {
            memory in
            let keys = choose(self.world.options.keys.filter { memory.pairs[$0] != nil }, memory)
            self.worker.after(200) { body(keys) }
        }
    }

    // MARK: Copy and verify

    private func generations(_ completion: @escaping ([RingTransition.Fence]?) -> Void) {
        var memories: [RingTransition.Fence] = []
        func ask(_ rest: ArraySlice<NodeID>) {
            guard let gainer = rest.first else { return completion(memories) }
            let batch = PeerBatch(epoch: stamp.epoch, clock: worker.reading, operations: [])
            worker.sendBatch(batch, to: gainer, timeout: 2 * World.second, mayRepeat: true) { served, _ in
                guard case .answer(let answer) = served else { return completion(nil) }
                memories.append(RingTransition.Fence(node: gainer, generation: answer.generation))
                ask(rest.dropFirst())
            }
        }
        ask(gainers[...])
    }

    private func stream(_ keys: [StoredKey]) {
        guard !isOver else { return }
        guard let key = keys.first else {
            return generations { again in
                guard let again, again == self.memories || self.world.has(.noGenerationFence) else {
                    return self.end(nil)
                }
                self.end(.init(generation: self.stamp.generation, gainers: self.memories))
            }
        }
        stream(key, to: gainersOf(key.slot)[...]) {
            _ = self.updateRecord { $0.checkpoint = (key.slot.value, self.memories) }
            self.worker.after(self.world.random.pick(100...30_000)) { self.stream(Array(keys.dropFirst())) }
        }
    }

    private func stream(_ key: StoredKey, to targets: ArraySlice<NodeID>, then next: @escaping () -> Void) {
        guard let gainer = targets.first else { return next() }
        let others = { self.stream(key, to: targets.dropFirst(), then: next) }
        if !comparesFirst(key) { return copy(key, to: gainer, then: others) }
        here(.readVersion(key)) { outcome in
            guard case .version(let ours) = outcome else { return self.end(nil) }
            self.there(self.question(key), gainer) { outcome in
                guard case .version(let theirs) = outcome else { return self.end(nil) }
                guard theirs < ours else { return others() }
                switch self.kind {
                case .repair: self.world.reached(.firstSourceLacked)
                case .change(.verify): self.world.reached(.verifyFoundLack)
                case .change: self.world.reached(.caughtUp)
                }
                self.copy(key, to: gainer, then: others)
            }
        }
    }

    private func copy(_ key: StoredKey, to gainer: NodeID, then next: @escaping () -> Void) {
        here(.read(key)) { outcome in
            guard case .record(let record) = outcome else { return self.end(nil) }
            guard let record else { return next() }
            self.there(.apply(key, record), gainer) { outcome in
                guard case .applied = outcome else { return self.end(nil) }
                next()
            }
        }
    }

    private func here(_ operation: KeyValue.Operation, _ completion: @escaping (Outcome) -> Void) {
        guard worker.view?.stamp == stamp else { return end(nil) }
        worker.submit([operation], deadline: world.now + 2 * World.second) { completion($0[0]) }
    }

    private func there(_ operation: KeyValue.Operation, _ gainer: NodeID, _ completion: @escaping (Outcome) -> Void) {
        let batch = PeerBatch(epoch: stamp.epoch, clock: worker.reading, operations: [operation])
        worker.sendBatch(batch, to: gainer, timeout: 2 * World.second, mayRepeat: true) { served, _ in
            guard case .answer(let answer) = served,
                self.world.has(.noGenerationFence)
                    || self.memories.contains(.init(node: gainer, generation: answer.generation))
            else { return self.end(nil) }
            completion(answer.outcomes[0])
        }
    }

    // MARK: Clean

    private func clean() {
        let table = world.routes.table(document)
        world.cleans(under: document)
        scan { keys, _ in
            keys.filter { !table[$0.slot].involves(self.worker.node) }
        } then: {
            let found = self.worker.host.memory.pairs
            self.delete($0.sorted { $0.slot < $1.slot }.compactMap { key in found[key].map { (key, $0.token) } })
        }
    }

    /// Each as long as it is the item that was found.
    private func delete(_ items: [(key: StoredKey, token: Int)]) {
        guard !isOver else { return }
        guard let (key, token) = items.first else { return end(.init(generation: stamp.generation, gainers: [])) }
        guard worker.view?.stamp == stamp else { return end(nil) }
        worker.begin(stamp.epoch)
        let failed = {
            self.worker.after(10) {
                self.worker.end(self.stamp.epoch)
                self.end(nil)
            }
        }
        worker.host.atMemory(world.random.pick(20...2000), broken: failed) { memory in
            if memory.pairs[key]?.token == token { memory.pairs[key] = nil }
            self.worker.after(50) {
                self.worker.end(self.stamp.epoch)
                self.delete(Array(items.dropFirst()))
            }
        }
    }
}
