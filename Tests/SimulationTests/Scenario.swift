// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import NIOCore
import TestSupport

/// One run: clients, ring changes and faults for some simulated seconds, then healing, then the checks.
struct Scenario {
    struct Verdict {
        var failure: String?
        let reached: [RareEvent: Int]
        let operations: Int
        let acknowledged: Int
        let trace: [String]
    }

    private let world: World
    private var options: Options { world.options }

    init(_ options: Options, _ routes: Routes) { world = World(options, routes) }

    func run() -> Verdict {
        defer { world.dismantle() }
        defer { world.dismantle() }
        for host in world.hosts { host.begin(with: options.document) }
        world.recorded(options.document)
        let end = options.seconds * World.second
        if options.hasListings { world.after(world.random.pick(0...500_000)) { runLister(until: end) } }
        for _ in 0..<options.clients { world.after(world.random.pick(0...200_000)) { runClient(until: end) } }
        planChanges(until: end)
        planFaults(until: end)
        world.lossPercent = options.lostMessagePercent
        world.run(until: end)
        heal()
        let limit = world.now + 60 * World.second
        world.run(until: limit) { !isQuiet }
        let isHealed = isQuiet
        // What had been sent before may land now; then everything is read once more.
        world.run(until: world.now + 3 * World.second)
        readEverything()
        world.run(until: world.now + 2 * World.second)
        return verdict(isHealed: isHealed)
    }

    // MARK: Clients

    private func runClient(until end: Int) {
        guard world.now < end else { return }
        let wait = world.random.pick(0...10) < 8 ? world.random.pick(0...30_000) : world.random.pick(0...400_000)
        let again = { world.after(wait) { runClient(until: end) } }
        guard let worker = world.random.pick(world.hosts).anyWorker() else { return again() }
        let key = world.random.pick(0...options.keys.count - 1)
        if world.random.chance(40) { write(key, at: worker, then: again) } else { read(key, at: worker, then: again) }
    }

    private func runLister(until end: Int) {
        guard world.now < end else { return }
        let again = { world.after(world.random.pick(0...200) * World.millisecond) { runLister(until: end) } }
        guard let worker = world.random.pick(world.hosts).anyWorker() else { return again() }
        var isOver = false
        func finish() {
            guard !isOver else { return }
            isOver = true
            again()
        }
        // (Whose worker dies hears nothing.)
        world.after(6 * World.second, finish)
        worker.after(world.random.pick(10...100)) { ListingRun(worker, completion: finish).begin() }
    }

    /// A client whose worker dies hears so and goes on: of a write it knows nothing.
    private func whenOver(_ id: Int, _ worker: Worker, then: @escaping () -> Void) -> () -> Void {
        var isOver = false
        func finish() {
            guard !isOver else { return }
            isOver = true
            then()
        }
        world.after(1100 * World.millisecond) {
            guard !isOver else { return }
            world.history.ended(id, at: world.now, .unknown)
            finish()
        }
        return finish
    }

    private func read(_ key: Int, at worker: Worker, then: @escaping () -> Void) {
        let id = world.history.beganRead(key, at: world.now, "\(worker.node)")
        let finish = whenOver(id, worker, then: then)
        worker.after(world.random.pick(10...100)) {
            ClientRun(worker, options.keys[key], id: id, envelope: nil, completion: finish).begin()
        }
    }

    private func write(_ key: Int, at worker: Worker, then: @escaping () -> Void) {
        let expected = options.hasConditions && world.random.chance(60) ? condition(of: key) : nil
        let (id, value) = world.history.beganWrite(key, over: expected, at: world.now, "\(worker.node)")
        guard let name = Key("k") else { return }
        let envelope = Envelope(
            key: name, storedKey: options.keys[key], value: ByteBuffer(),
            isTombstone: world.random.chance(options.deletePercent), contentType: String(value))
        if envelope.isTombstone { world.history.deletes(value) }
        let finish = whenOver(id, worker, then: then)
        worker.after(world.random.pick(10...100)) {
            ClientRun(
                worker, options.keys[key], id: id, envelope: envelope, over: expected?.version, completion: finish
            ).begin()
        }
    }

    /// What a client has seen of the key, or, now and then, that it is not there.
    private func condition(of key: Int) -> History.Seen {
        let nothing = History.Seen(value: 0, version: .none)
        return world.random.chance(10) ? nothing : world.history.latest(of: key) ?? nothing
    }

    private func readEverything() {
        for key in options.keys.indices {
            for host in world.hosts { if let worker = host.anyWorker() { read(key, at: worker) {} } }
        }
    }

    // MARK: Changes and faults

    private func planChanges(until end: Int) {
        for index in 0..<options.changes {
            let time = index == 0 ? world.random.pick(0...World.second) : world.random.pick(0...end)
            world.after(time) {
                guard let worker = world.random.pick(world.hosts).anyWorker(), let ring = world.newest?.ring else {
                    return
                }
                let change = randomChange(ring)
                worker.change(change)
                if world.random.chance(15), let other = world.random.pick(world.hosts).anyWorker() {
                    other.change(world.random.chance(50) ? change : randomChange(ring))
                }
            }
        }
        if options.losesHost {
            world.after(world.random.pick(0...end)) {
                if world.random.chance(50) { loseHost() } else { loseHostDuringChange(until: end) }
            }
        }
        for _ in 0..<options.aborts {
            world.after(world.random.pick(0...end)) { world.random.pick(world.hosts).anyWorker()?.abortChange() }
            // Most changes are short: some aborts follow right upon their beginning.
            world.after(world.random.pick(0...World.second)) { abortSoon(until: end) }
        }
    }

    /// A member is gone for good, and an operator goes on without it.
    private func loseHost() {
        guard let ring = world.newest?.ring, ring.nodes.count > 1, world.isWhole, world.hasSpares,
            let host = world.host(world.random.pick(ring.nodes))
        else { return }
        host.goForGood()
        let outside = options.nodes.filter { !ring.contains($0) && world.host($0)?.isGone == false }
        let change: RingChange =
            outside.first.map { new in
                world.random.chance(50) ? .replace(old: host.node, new: new) : .remove(node: host.node)
            } ?? .remove(node: host.node)
        world.after(world.random.pick(10...1500) * World.millisecond) {
            world.random.pick(world.hosts.filter { !$0.isGone }).anyWorker()?.change(change, isForced: true)
        }
    }

    private func loseHostDuringChange(until end: Int) {
        guard world.now < end else { return }
        if world.newest?.transition != nil, world.random.chance(20) { return loseHost() }
        world.after(world.random.pick(1...20) * World.millisecond) { loseHostDuringChange(until: end) }
    }

    private func abortSoon(until end: Int) {
        guard world.now < end else { return }
        if let transition = world.newest?.transition, transition.step == .crossing || world.random.chance(20) {
            return world.hosts.forEach { $0.anyWorker()?.abortChange() }
        }
        world.after(world.random.pick(5...60) * World.millisecond) { abortSoon(until: end) }
    }

    private func randomChange(_ ring: Ring) -> RingChange {
        let outside = options.nodes.filter { !ring.contains($0) }
        let positions = [1000, 2000, 3000, 4000, 6000, 8000].compactMap { Position($0) }
        let free = positions.filter { ring.node(at: $0) == nil }
        if let node = outside.first, !free.isEmpty, ring.nodes.count < 2 || world.random.chance(60) {
            return .add(node: node, positions: world.random.chance(50) ? [world.random.pick(free)] : free)
        }
        let node = world.random.pick(ring.nodes)
        if let new = outside.first, world.random.chance(20) { return .replace(old: node, new: new) }
        return .remove(node: node)
    }

    private func planFaults(until end: Int) {
        for _ in 0..<options.faults {
            let time = world.random.pick(200 * World.millisecond...end)
            let isAimed = world.random.chance(60)
            world.after(time) { if isAimed { faultDuringChange(until: end) } else { fault() } }
        }
    }

    /// Faults do most where something moves.
    private func faultDuringChange(until end: Int) {
        guard world.now < end else { return }
        if world.newest?.transition != nil, world.random.chance(20) { return fault() }
        world.after(world.random.pick(1...20) * World.millisecond) { faultDuringChange(until: end) }
    }

    private func fault() {
        let host = world.random.pick(world.hosts)
        let driving = world.hosts.flatMap(\.workers).filter { $0.isAlive && $0.driver != nil }
        if options.losesMuch, world.random.chance(50), world.isWhole, world.hasSpares {
            return world.random.chance(30) ? host.replaceMachine() : host.restartEmpty()
        }
        switch world.random.pick(0...9) {
        case 0, 1: if let worker = host.anyWorker() { host.kill(worker) }
        case 2: for worker in host.workers { host.kill(worker) }
        case 3: if let worker = driving.first { worker.host.kill(worker) }
        case 4: driving.first?.pause(for: world.random.pick(500...6000) * World.millisecond)
        case 5: host.anyWorker()?.pause(for: world.random.pick(100...2500) * World.millisecond)
        case 6: host.hang(for: world.random.pick(50...3000) * World.millisecond)
        case 7:
            // Now and then longer than a driver's patience.
            let length = world.random.chance(10) ? world.random.pick(9000...25_000) : world.random.pick(200...4000)
            let until = world.now + length * World.millisecond
            for other in world.hosts where other !== host && world.random.chance(70) {
                world.cuts[[host.node, other.node]] = until
            }
        default:
            if options.emptiesMemories, options.replicas > 1, world.isWhole, world.hasSpares, world.random.chance(30) {
                host.replaceMachine()
            } else if options.emptiesMemories, options.replicas == 1 || world.isWhole && world.hasSpares {
                host.restartEmpty()
            } else if let worker = host.anyWorker() {
                host.kill(worker)
            }
        }
    }

    private func heal() {
        world.note("heal")
        world.isHealing = true
        world.lossPercent = 0
        world.cuts = [:]
        for host in world.hosts { host.comeBack() }
    }

    // MARK: Verdict

    /// One ring on all hosts, no change under way, and nothing left to sweep.
    private var isQuiet: Bool {
        guard let newest = world.newest, newest.transition == nil else { return false }
        return world.hosts.allSatisfy { host in
            host.memory.record?.document == newest && host.memory.stamp?.epoch == newest.epoch
                && host.memory.stamp?.isRecovering == false
                && host.workers.contains { $0.isAlive && $0.view?.document == newest }
                && orphans(of: host, newest).isEmpty
        }
    }

    private func orphans(of host: Host, _ document: RingDocument) -> [StoredKey] {
        host.memory.pairs.keys.filter {
            !document.holders(of: $0.slot).contains(host.node) && !host.memory.stray.contains($0)
        }
    }

    private func verdict(isHealed: Bool) -> Verdict {
        var failure: String?
        if !isHealed {
            failure =
                "not healed after a minute: "
                + world.hosts.map { host in
                    let document = host.memory.record?.document
                    let orphans = document.map { self.orphans(of: host, $0).count } ?? 0
                    return
                        "\(host.node) at \(document?.epoch ?? .none) \(document?.transition?.step.rawValue ?? "stable")"
                        + " of \(host.memory.stamp?.epoch ?? .none), \(orphans) orphans"
                        + (host.memory.stamp?.isRecovering == false ? "" : ", recovering")
                }.joined(separator: "; ")
        }
        if failure == nil, let (one, other) = world.differingDocuments {
            failure = "two documents of epoch \(one.epoch): \(one) and \(other)"
        }
        if let document = world.newest,
            world.hosts.contains(where: { host in
                host.memory.stray.contains { !document.holders(of: $0.slot).contains(host.node) }
            })
        {
            world.reached(.strayCopy)
        }
        for key in options.keys.indices where failure == nil { failure = check(key) }
        let operations = world.history.operations
        return Verdict(
            failure: failure, reached: world.reached, operations: operations.count,
            acknowledged: operations.count { $0.isWrite && $0.outcome == .ok }, trace: world.trace)
    }

    private func check(_ key: Int) -> String? {
        let unknown = Set(
            world.history.operations.filter { $0.key == key && $0.isWrite && $0.outcome == .unknown }.map(\.value))
        if world.history.operations.contains(where: { !$0.isWrite && $0.outcome == .ok && unknown.contains($0.value) })
        {
            world.reached(.unknownWriteSeen)
        }
        for calls in world.history.lives(of: key) {
            guard
                let wrong = Linearizability.zones(calls) ?? Linearizability.versions(calls)
                    ?? Linearizability.conditions(calls)
            else { continue }
            return "key \(key) (slot \(options.keys[key].slot)): \(wrong)"
        }
        return world.history.wrongListing(of: key).map { "key \(key) (slot \(options.keys[key].slot)): \($0)" }
    }

    /// What was asked and heard of a key, for a failure's report.
    func story(of key: Int) -> [String] {
        world.history.operations.filter { $0.key == key }.map(\.description)
    }
}

extension RingDocument {
    /// Who holds the slot while nothing moves.
    func holders(of slot: Slot) -> [NodeID] { ring.preferenceList(of: slot, count: replicas) }
}
