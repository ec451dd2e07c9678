// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import TestSupport

/// The host's ring as `RingKeeper` and `PeerService` look after it. Each access to memcached is an event of its own.
extension Worker {
    struct Exchange {
        let document: RingDocument?
        let clock: UInt64
    }

    struct PromiseAnswer {
        let heldBy: String?
        let document: RingDocument?
        let generation: Generation
    }

    enum AnnouncementState { case adopted, draining, lostWhatWasVerified, overtaken, notPromised }

    struct AnnouncementAnswer {
        let state: AnnouncementState
        let generation: Generation
    }

    // MARK: Reading

    func refresh() {
        guard !host.isHanging else { return }
        let memory = host.memory
        guard let stamp = memory.stamp, let record = memory.record else { return restore() }
        if record.epoch > stamp.epoch {
            save(record, stamp.generation)
            raise(&memory.stamp, to: record)
            return refresh()
        }
        after(world.random.pick(20...300)) { self.adopt(record.document, stamp) }
    }

    private func adopt(_ newest: RingDocument?, _ stamp: Stamp) {
        if let newest, newest.epoch >= (document?.epoch ?? .none) { document = newest }
        guard (newest?.epoch ?? .none) == stamp.epoch else { return }
        guard view?.stamp != stamp || view?.document != newest else { return }
        if let view, view.stamp.generation == stamp.generation, view.stamp.epoch > stamp.epoch { return }
        if view?.stamp.generation != stamp.generation { register(.none) }
        let view = View(
            stamp: stamp, document: newest,
            table: newest.flatMap { $0.ring.isEmpty ? nil : world.routes.table($0) },
            isFenced: newest.map { !world.has(.noGenerationFence) && memory(stamp.generation).isFenced(under: $0) }
                ?? false,
            acknowledgesNothing: stamp.isRecovering
                && newest.map { memory(stamp.generation).isToWaitEmpty(under: $0) } ?? false)
        if !view.acknowledgesNothing { stood = newest }
        adopt(view)
    }

    // MARK: Changing

    /// Changes the record at memcached; nil where memcached has forgotten the ring, or is gone.
    private func update<Answer>(
        _ change: @escaping (inout HostRingRecord) -> Answer,
        completion: @escaping ((answer: Answer, record: HostRingRecord, generation: Generation)?) -> Void
    ) {
        host.atMemory(world.random.pick(40...400), broken: { self.after(10) { completion(nil) } }) { memory in
            guard var record = memory.record, let stamp = memory.stamp else {
                return self.after(20) {
                    self.refresh()
                    completion(nil)
                }
            }
            let answer = change(&record)
            self.examine(&record, after: memory.record?.document, stamp.generation)
            memory.record = record
            if let document = record.document { self.world.recorded(document) }
            self.after(self.world.random.pick(10...100)) { completion((answer, record, stamp.generation)) }
        }
    }

    /// On disk, in the stamp, in this worker.
    private func settle(_ completion: @escaping (_ isDone: Bool) -> Void) {
        func failed() { after(10) { completion(false) } }
        host.atMemory(world.random.pick(20...100), broken: failed) { memory in
            guard let record = memory.record else { return failed() }
            self.after(self.world.random.pick(50...2000)) {
                if let stamp = self.host.memory.stamp { self.save(record, stamp.generation) }
                self.host.atMemory(self.world.random.pick(20...200), broken: failed) { memory in
                    guard memory.stamp != nil else { return failed() }
                    self.raise(&memory.stamp, to: record)
                    self.after(20) {
                        self.refresh()
                        completion(true)
                    }
                }
            }
        }
    }

    func memory(_ generation: Generation) -> HostMemory { HostMemory(node: node, generation: generation) }

    /// Whether this memory lacks something from the record's document on.
    private func examine(_ record: inout HostRingRecord, after previous: RingDocument?, _ generation: Generation) {
        guard record.document != previous else { return }
        if previous == nil, world.has(.trustsNewMachines) { return }
        record.examine(memory(generation), after: previous)
    }

    private func raise(_ stamp: inout Stamp?, to record: HostRingRecord) {
        guard let held = stamp, record.epoch > held.epoch else { return }
        if let since = record.wantingSince, held.epoch < since, since <= record.epoch {
            world.reached(held.epoch == .none ? .newMachine : .lateGainer)
            stamp?.isRecovering = true
        }
        stamp?.epoch = record.epoch
    }

    private func save(_ record: HostRingRecord, _ generation: Generation) {
        guard let document = record.document, !record.isWithoutWhatWasVerified(memory(generation)),
            document.epoch > (host.disk?.epoch ?? .none)
        else { return }
        host.disk = document
    }

    func promise(to holder: String, isRenewal: Bool, _ reply: @escaping (PromiseAnswer?) -> Void) {
        let now = monotonicMilliseconds
        update { record in
            isRenewal
                ? record.renew(holder, nowMilliseconds: now, lifeMilliseconds: 3000)
                : record.promise(to: holder, nowMilliseconds: now, lifeMilliseconds: 3000)
        } completion: { result in
            guard let result else { return reply(nil) }
            var heldBy: String?
            if case .heldBy(let other) = result.answer, !self.world.has(.noPromise) { heldBy = other }
            reply(PromiseAnswer(heldBy: heldBy, document: result.record.document, generation: result.generation))
        }
    }

    func release(_ holder: String) {
        update {
            $0.release(holder)
        } completion: { _ in
        }
    }

    func promiseHolder() -> String? {
        guard let promise = host.memory.record?.promise, promise.expiresAtMilliseconds >= monotonicMilliseconds else {
            return nil
        }
        return promise.holder
    }

    private var monotonicMilliseconds: Int64 { Int64(world.now / World.millisecond) }

    func learn(_ other: RingDocument) {
        guard other.epoch > (view?.stamp.epoch ?? .none) else { return }
        update {
            $0.learn(other)
        } completion: {
            if $0 != nil { self.settle { _ in } }
        }
    }

    func exchange(_ theirs: RingDocument?, _ reply: @escaping (Exchange?) -> Void) {
        if let theirs { learn(theirs) }
        reply(Exchange(document: document, clock: reading))
    }

    func announce(
        _ next: RingDocument, by holder: String, needsPromise: Bool, _ reply: @escaping (AnnouncementAnswer?) -> Void
    ) {
        let isLearned = !needsPromise || world.has(.noPromise)
        update { record in
            if isLearned, record.learn(next) { return HostRingRecord.AnnouncementAnswer.accepted }
            return record.announce(next, by: holder)
        } completion: { result in
            guard let result else { return reply(nil) }
            switch result.answer {
            case .overtaken: reply(AnnouncementAnswer(state: .overtaken, generation: result.generation))
            case .notPromised:
                self.world.reached(.notPromised)
                reply(AnnouncementAnswer(state: .notPromised, generation: result.generation))
            case .accepted:
                self.settle { isDone in
                    guard isDone, let generation = self.host.memory.stamp?.generation else { return reply(nil) }
                    let deadline = self.world.now + 1500 * World.millisecond
                    self.waitUntilDrained(next, generation, deadline: deadline, reply)
                }
            }
        }
    }

    private func waitUntilDrained(
        _ next: RingDocument, _ generation: Generation, deadline: Int, _ reply: @escaping (AnnouncementAnswer?) -> Void
    ) {
        let epoch = next.epoch
        let living = host.memory.registry.values.filter { world.living.contains($0.process) }
        let isDrained =
            (!living.isEmpty && living.allSatisfy { $0.drained >= epoch }) || world.has(.noWaitForAdoption)
        if !isDrained, world.now < deadline {
            return after(10 * World.millisecond) {
                self.waitUntilDrained(next, generation, deadline: deadline, reply)
            }
        }
        guard let after = host.memory.stamp?.generation else { return reply(nil) }
        let isHeldBack =
            next.transition?.step.needsWholeMemories ?? false && host.memory.stamp?.isRecovering == true
            && !world.has(.changesWhileRecovering)
        let isAdopted = isDrained && after == generation && !isHeldBack
        if isHeldBack { world.reached(.heldBackWhileRecovering) }
        if isAdopted { host.adopted(epoch) }
        let isWithout =
            host.memory.record?.isWithoutWhatWasVerified(memory(after)) == true && !world.has(.cleansAfterALoss)
        reply(
            AnnouncementAnswer(
                state: !isAdopted ? .draining : isWithout ? .lostWhatWasVerified : .adopted, generation: after))
    }

    // MARK: Bringing the ring back

    private func restore() {
        guard !isRestoring else { return }
        isRestoring = true
        if view != nil { adopt(nil) }
        register(.none)
        var newest = document
        var isConfirmed = newest != nil
        if newest == nil, host.disk != nil { world.reached(.restoredFromDisk) }
        if let disk = host.disk, disk.epoch > (newest?.epoch ?? .none) { newest = disk }
        var previous = stood
        if let disk = host.disk, disk.epoch > (previous?.epoch ?? .none) { previous = disk }
        let others = Set(newest.map { $0.members + $0.standbys } ?? []).subtracting([node])
        var silent = others.count
        var answers = 0
        func heard(_ answer: Exchange?) {
            silent -= 1
            if let answer {
                answers += 1
                if let theirs = answer.document {
                    isConfirmed = true
                    if theirs.epoch > (newest?.epoch ?? .none) { newest = theirs }
                }
            }
            if silent <= 0 { asked(newest, after: previous, isConfirmed || answers == others.count) }
        }
        for other in others.sorted() {
            call(other, timeout: 500 * World.millisecond, mayRepeat: true) {
                $0.exchange(nil, $1)
            } completion: { answer, _ in
                heard(answer)
            }
        }
        if others.isEmpty { asked(newest, after: previous, isConfirmed) }
    }

    private func asked(_ newest: RingDocument?, after previous: RingDocument?, _ isConfirmed: Bool) {
        func give() { after(10) { self.isRestoring = false } }
        let isAlone = newest.map { Set($0.members).subtracting([node]).isEmpty } ?? true
        guard isConfirmed || isAlone else { return give() }
        let generation = Generation(world.random.next())
        var record = HostRingRecord(document: newest)
        record.examine(self.memory(generation), after: previous)
        host.atMemory(world.random.pick(20...300), broken: give) { [record] memory in
            if memory.record == nil { memory.record = record }
            self.after(self.world.random.pick(10...500)) {
                guard let held = self.host.memory.record else { return give() }
                self.host.atMemory(self.world.random.pick(20...300), broken: give) { memory in
                    if memory.stamp == nil {
                        memory.stamp = Stamp(
                            epoch: held.epoch, generation: generation,
                            isRecovering: held.wantingSince != nil
                                || self.memory(generation).isWantingEmpty(under: held.document))
                    }
                    let stamp = memory.stamp
                    self.after(self.world.random.pick(10...60)) {
                        self.isRestoring = false
                        if let newest, newest.epoch > held.epoch { return self.learn(newest) }
                        if let stamp { self.adopt(held.document, stamp) }
                    }
                }
            }
        }
    }
}
