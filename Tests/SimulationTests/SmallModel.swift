// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import NIOCore

/// A world small enough to be walked through completely: three nodes, one key, whose slot moves from the first node to
/// the second while two writes and one read are under way and up to two crashes happen.
///
/// Everything that decides is the real thing: `RingTransitionStateMachine`, `HostRingRecord`, `RoutingTable`,
/// `QuorumRead`, `QuorumWrite`, `HybridClock`, `Apply`. What happens at one node upon one message, and at whoever sent
/// it upon the answer, is one step; messages wait in any number and come in any order. A crash is one of: a coordinator
/// dies (what it sent is still on its way), a replica's worker dies with a store in memcached's socket (it may land at
/// any later time, unless the pair has changed by then), the driver dies or is stopped (its messages are still on their
/// way, another one takes over), the gaining node's memory is lost (before that node stands on cleaning with what was
/// verified: after that, it held the only copy).
///
/// Time stands still: what a driver does after having waited for long is not in here, but in the random runs.
///
/// To keep the walk short, what can be put off without any difference is done at once (`doWhatCommutes`).
struct SmallModel: Hashable {
    enum Mutant: CaseIterable {
        case noCrossingReads, noVerify, noFirstPhase, noWriteBack, noEpochCheck, noVersionCheck
    }

    struct Host: Hashable {
        var record: HostRingRecord
        /// The newest document on which it could act, as its disk has it.
        var stood: RingDocument?
        /// Its version stands for memcached's `cas` number: no two stores have the same.
        var pair: Envelope?
        var generation = Generation(1)
        var clock: HybridClock

        /// Short, for it is asked for a million times.
        func hash(into hasher: inout Hasher) {
            hasher.combine(record.document.map { Known(document: $0) })
            hasher.combine(record.promise?.holder)
            hasher.combine(record.wantingSince)
            if stood != record.document { hasher.combine(stood?.epoch) }
            hasher.combine(pair?.version)
            hasher.combine(generation)
            hasher.combine(clock.last)
        }
    }

    /// A document, told apart by what differs within one walk.
    struct Known: Hashable {
        let document: RingDocument

        func hash(into hasher: inout Hasher) {
            hasher.combine(document.epoch)
            hasher.combine(document.transition?.step)
            for fence in document.transition?.fences ?? [] { hasher.combine(fence.generation) }
        }
    }

    struct Client: Hashable {
        enum State: Hashable { case idle, running, waiting, answered, dead }

        let isWrite: Bool
        let value: Int
        let coordinator: Int
        var state = State.idle
        /// Under which document it runs: each try has a newer one.
        var epoch = Epoch.none
        var read: QuorumRead? { didSet { machineHash = read.hashValue } }
        var write: QuorumWrite? { didSet { machineHash = write.hashValue } }
        private var machineHash = 0
        var fixed: Version?
        var wasSent = false
        /// What was read.
        var result = 0
        /// Clients that had their answer when this one asked.
        var after: Set<Int> = []

        init(isWrite: Bool, value: Int, coordinator: Int) {
            self.isWrite = isWrite
            self.value = value
            self.coordinator = coordinator
        }

        /// What it knew is of no use any more.
        mutating func finish(_ state: State) {
            self.state = state
            read = nil
            write = nil
            machineHash = 0
            epoch = .none
            fixed = nil
            wasSent = false
        }

        func hash(into hasher: inout Hasher) {
            hasher.combine(state)
            hasher.combine(epoch)
            hasher.combine(machineHash)
            hasher.combine(fixed)
            hasher.combine(wasSent)
            hasher.combine(result)
            hasher.combine(after)
        }
    }

    enum Message: Hashable {
        enum Request: Hashable {
            case read, readVersion
            case stamp(Envelope)
            case apply(Envelope)
            case writeBack(Envelope)
        }
        case operation(Request, client: Int, to: Int, epoch: Epoch)
        case announce(Known, to: Int, driver: Int)
        case job(RingTransitionStateMachine.Job, on: Int, Known, driver: Int)
        /// A job has read the pair and sends it to the gaining node.
        case copy(Envelope?, RingTransitionStateMachine.Job, Known, driver: Int, toGeneration: Generation)
        /// In the socket of a worker that is dead.
        case lateStore(Envelope, at: Int, over: Version?, generation: Generation)

        func hash(into hasher: inout Hasher) {
            switch self {
            case .operation(let request, let client, let to, let epoch):
                hasher.combine(client)
                hasher.combine(to)
                hasher.combine(epoch)
                switch request {
                case .read: hasher.combine(1)
                case .readVersion: hasher.combine(2)
                case .stamp: hasher.combine(3)
                case .apply(let envelope): hasher.combine(envelope.version)
                case .writeBack(let envelope):
                    hasher.combine(4)
                    hasher.combine(envelope.version)
                }
            case .announce(let known, let to, let driver):
                hasher.combine(known)
                hasher.combine(to)
                hasher.combine(driver)
            case .job(let job, let on, let known, let driver):
                hasher.combine(job)
                hasher.combine(on)
                hasher.combine(known)
                hasher.combine(driver)
            case .copy(let envelope, let job, let known, let driver, let generation):
                hasher.combine(envelope?.version)
                hasher.combine(job)
                hasher.combine(known)
                hasher.combine(driver)
                hasher.combine(generation)
            case .lateStore(let envelope, let at, let over, let generation):
                hasher.combine(envelope.version)
                hasher.combine(at)
                hasher.combine(over)
                hasher.combine(generation)
            }
        }
    }

    static let nodes = [1, 2, 3].compactMap { NodeID("127.0.0.\($0):5000") }
    static let key = Key("small").map { StoredKey($0) }

    var hosts: [Host]
    var clients: [Client]
    var messages: Set<Message> = []
    var machine: RingTransitionStateMachine { didSet { machineHash = machine.hashValue } }
    private var machineHash = 0
    var driver = 1
    var isOver = false
    var crashes: Int
    /// What has happened, where that is asked for.
    var story: [String]?

    func hash(into hasher: inout Hasher) {
        hasher.combine(hosts)
        hasher.combine(clients)
        hasher.combine(messages)
        hasher.combine(machineHash)
        hasher.combine(driver)
        hasher.combine(isOver)
        hasher.combine(crashes)
    }

    /// - Parameters:
    ///   - writes: the hosts that coordinate them.
    ///   - reads: likewise.
    init?(writes: [Int], reads: [Int], crashes: Int) {
        guard let key = SmallModel.key, let away = Position((Int(key.slot.value) + 5000) % Slot.count),
            let here = Position(Int(key.slot.value)), let beyond = Position((Int(key.slot.value) + 1) % Slot.count),
            let ring = Ring(seats: [
                .init(position: beyond, node: SmallModel.nodes[0]), .init(position: away, node: SmallModel.nodes[2]),
            ])
        else { return nil }
        let document = RingDocument(epoch: Epoch(1), ring: ring, standbys: [SmallModel.nodes[1]])
        var record = HostRingRecord(document: document)
        _ = record.promise(to: "1", nowMilliseconds: 0, lifeMilliseconds: 1000)
        hosts = (0..<3).map { index in
            var clock = HybridClock(writer: UInt32(index + 1))
            // The third node's clock is ahead.
            if index == 2 { _ = clock.merge(20, wallMicroseconds: 1) }
            return Host(record: record, stood: document, clock: clock)
        }
        clients = writes.enumerated().map { Client(isWrite: true, value: $0 + 1, coordinator: $1) }
        clients += reads.map { Client(isWrite: false, value: 0, coordinator: $0) }
        self.crashes = crashes
        guard
            let (machine, actions) = try? RingTransitionStateMachine.beginning(
                .add(node: SmallModel.nodes[1], positions: [here]), id: "m", document: document,
                generations: Dictionary(uniqueKeysWithValues: SmallModel.nodes.map { ($0, Generation(1)) }),
                nowMilliseconds: 0)
        else { return nil }
        self.machine = machine
        perform(actions)
    }

    // MARK: What may happen next

    func successors(_ routes: Routes, _ mutant: Mutant?) -> [SmallModel] {
        var next: [SmallModel] = []
        func step(_ change: (inout SmallModel) -> Void) { self.step(&next, routes, mutant, change) }
        for message in messages {
            step {
                $0.story?.append("\(message)")
                $0.messages.remove(message)
                $0.deliver(message, routes, mutant, isDying: false)
            }
            guard crashes > 0, case .operation(let request, _, _, _) = message, request != .read,
                request != .readVersion
            else { continue }
            step {
                $0.story?.append("the worker dies that does \(message)")
                $0.messages.remove(message)
                $0.crashes -= 1
                $0.deliver(message, routes, mutant, isDying: true)
            }
        }
        for index in clients.indices {
            switch clients[index].state {
            case .idle where isFirstOfItsKind(index):
                step { state in
                    state.story?.append("client \(index) begins")
                    state.clients[index].after = Set(clients.indices.filter { clients[$0].state == .answered })
                    state.begin(index, routes, mutant)
                }
            case .waiting where hosts[clients[index].coordinator].record.epoch > clients[index].epoch:
                step {
                    $0.story?.append("client \(index) begins again")
                    $0.begin(index, routes, mutant)
                }
            case .running where crashes > 0, .waiting where crashes > 0:
                step {
                    $0.crashes -= 1
                    $0.story?.append("the coordinator of client \(index) dies")
                    $0.clients[index].finish(.dead)
                    $0.forgetQuestions(of: index)
                }
            case .idle, .running, .waiting, .answered, .dead: break
            }
        }
        if crashes > 0, !isOver, hosts[0].record.document?.transition != nil {
            step {
                $0.crashes -= 1
                $0.story?.append("another driver takes over")
                $0.takeOver()
            }
            if newest.transition != nil,
                hosts[1].record.document?.transition?.step != .cleaning || isWithoutWhatWasVerified(1)
            {
                self.step(&next, routes, mutant) {
                    $0.crashes -= 1
                    $0.story?.append("the gainer's memory is lost")
                    $0.hosts[1].pair = nil
                    $0.hosts[1].generation = Generation($0.hosts[1].generation.value + 1)
                    $0.hosts[1].record = HostRingRecord(document: $0.hosts[1].record.document)
                    $0.hosts[1].record.examine($0.memory(of: 1), after: $0.hosts[1].stood)
                }
            }
        }
        return next
    }

    private func step(
        _ next: inout [SmallModel], _ routes: Routes, _ mutant: Mutant?, _ change: (inout SmallModel) -> Void
    ) {
        var state = self
        change(&state)
        state.doWhatCommutes(routes, mutant)
        next.append(state)
    }

    /// Of two that are alike, the first one begins first.
    private func isFirstOfItsKind(_ index: Int) -> Bool {
        !clients[..<index].contains {
            $0.state == .idle && $0.isWrite == clients[index].isWrite && $0.coordinator == clients[index].coordinator
        }
    }

    // MARK: What makes no difference

    /// Delivers what has the same effect now as later, and drops what has none.
    private mutating func doWhatCommutes(_ routes: Routes, _ mutant: Mutant?) {
        while let message = messages.first(where: { commutes($0, mutant) }) {
            messages.remove(message)
            story?.append("at once: \(message)")
            if !isVain(message, mutant) { deliver(message, routes, mutant, isDying: false) }
        }
    }

    private func commutes(_ message: Message, _ mutant: Mutant?) -> Bool {
        if isVain(message, mutant) { return true }
        switch message {
        case .operation(_, _, let to, let epoch):
            // It will be refused whenever it comes.
            return hosts[to].record.epoch > epoch && mutant != .noEpochCheck
        case .announce(let known, let to, _):
            // The bystander holds nothing; with the last document, nothing goes elsewhere than with the one before.
            let isBystander = to == 2 && !clients.contains { $0.coordinator == 2 }
            return isBystander || known.document.transition == nil
        // A node cleans what no operation asks for.
        case .job(let job, _, _, _): return job == .clean
        case .copy, .lateStore: return false
        }
    }

    private func isVain(_ message: Message, _ mutant: Mutant?) -> Bool {
        switch message {
        case .operation: false
        case .announce(let known, let to, let driver):
            driver != self.driver && hosts[to].record.epoch >= known.document.epoch
        case .job(_, _, _, let driver): driver != self.driver
        case .copy(_, _, let known, let driver, let generation):
            driver != self.driver && mutant != .noEpochCheck
                && (hosts[1].record.epoch > known.document.epoch || hosts[1].generation != generation)
        case .lateStore(_, let at, let over, let generation):
            hosts[at].generation != generation || (over != nil && hosts[at].pair?.version != over)
        }
    }

    private var newest: RingDocument {
        hosts.compactMap(\.record.document).max { $0.epoch < $1.epoch } ?? machine.document
    }

    /// What counts is the losing node's word.
    private mutating func takeOver() {
        guard let document = hosts[0].record.document, document.transition != nil else { return }
        driver += 1
        for index in hosts.indices {
            // The old promise has expired.
            _ = hosts[index].record.promise(
                to: String(driver), nowMilliseconds: Int64(driver) * 10_000, lifeMilliseconds: 1000)
        }
        let (resumed, actions) = RingTransitionStateMachine.resuming(document, nowMilliseconds: 0)
        machine = resumed
        perform(actions)
    }

    // MARK: The driver

    private mutating func perform(_ actions: [RingTransitionStateMachine.Action]) {
        for action in actions {
            switch action {
            case .announce(let document, let node, _):
                messages.insert(.announce(Known(document: document), to: index(of: node), driver: driver))
            case .run(let job, let node, let document, _):
                messages.insert(.job(job, on: index(of: node), Known(document: document), driver: driver))
            case .tell: break
            case .end: isOver = true
            }
        }
    }

    private mutating func handle(_ event: RingTransitionStateMachine.Event, for driver: Int) {
        guard driver == self.driver, !isOver else { return }
        perform(machine.handle(event, nowMilliseconds: 0))
    }

    private func index(of node: NodeID) -> Int { SmallModel.nodes.firstIndex(of: node) ?? 0 }

    // MARK: Messages

    private mutating func deliver(_ message: Message, _ routes: Routes, _ mutant: Mutant?, isDying: Bool) {
        switch message {
        case .operation(let request, let client, let to, let epoch):
            let outcome = serve(request, client, to, epoch, mutant, isDying: isDying)
            guard clients[client].state == .running, clients[client].epoch == epoch else { return }
            let isWriteBack = if case .writeBack = request { true } else { false }
            received(outcome, client, from: SmallModel.nodes[to], isWriteBack: isWriteBack, mutant)
            forgetQuestions(of: client)
        case .announce(let known, let to, let driver): announced(known.document, to, driver)
        case .job(let job, let on, let known, let driver): run(job, on, known.document, driver, routes, mutant)
        case .copy(let pair, let job, let document, let driver, let generation):
            copied(pair, job, document.document, driver, generation, mutant)
        case .lateStore(let envelope, let at, let over, let generation):
            guard hosts[at].pair?.version == over, hosts[at].generation == generation else { return }
            hosts[at].pair = envelope
        }
    }

    /// Questions on their way for which nobody waits any more change nothing.
    mutating func forgetQuestions(of client: Int) {
        let (isRunning, epoch) = (clients[client].state == .running, clients[client].epoch)
        messages = messages.filter { message in
            guard case .operation(let request, client, _, let asked) = message else { return true }
            return (request != .read && request != .readVersion) || (isRunning && asked == epoch)
        }
    }

    private mutating func announced(_ document: RingDocument, _ to: Int, _ driver: Int) {
        let needsPromise = to == 0 && document.transition != nil
        if needsPromise || !learn(document, at: to) {
            switch hosts[to].record.announce(document, by: String(driver)) {
            case .accepted: break
            case .overtaken: return handle(.overtaken(SmallModel.nodes[to], document.epoch), for: driver)
            case .notPromised:
                return handle(.failed(SmallModel.nodes[to], document.epoch, reason: "not promised"), for: driver)
            }
        }
        noteWhereItStands(to)
        if isWithoutWhatWasVerified(to) {
            return handle(.lostWhatWasVerified(SmallModel.nodes[to], document.epoch), for: driver)
        }
        handle(.adopted(SmallModel.nodes[to], document.epoch, hosts[to].generation), for: driver)
    }

    /// - Returns: whether it was news.
    private mutating func learn(_ document: RingDocument, at host: Int) -> Bool {
        let previous = hosts[host].record.document
        let isNews = hosts[host].record.learn(document)
        hosts[host].record.examine(memory(of: host), after: previous)
        noteWhereItStands(host)
        return isNews
    }

    private mutating func noteWhereItStands(_ host: Int) {
        if !isWithoutWhatWasVerified(host) { hosts[host].stood = hosts[host].record.document }
    }

    private func memory(of host: Int) -> HostMemory {
        HostMemory(node: SmallModel.nodes[host], generation: hosts[host].generation)
    }

    private mutating func run(
        _ job: RingTransitionStateMachine.Job, _ on: Int, _ document: RingDocument, _ driver: Int, _ routes: Routes,
        _ mutant: Mutant?
    ) {
        guard driver == self.driver, hosts[on].record.epoch == document.epoch else { return }
        if job == .clean {
            if let key = SmallModel.key, !routes.table(document)[key.slot].involves(SmallModel.nodes[on]) {
                hosts[on].pair = nil
            }
            return handle(done(job, on, document, nil), for: driver)
        }
        let pair = job == .verify && mutant == .noVerify ? nil : hosts[on].pair
        messages.insert(.copy(pair, job, Known(document: document), driver: driver, toGeneration: hosts[1].generation))
    }

    private func done(
        _ job: RingTransitionStateMachine.Job, _ on: Int, _ document: RingDocument, _ gainer: Generation?
    ) -> RingTransitionStateMachine.Event {
        let fences = gainer.map { [RingTransition.Fence(node: SmallModel.nodes[1], generation: $0)] } ?? []
        return .jobDone(
            SmallModel.nodes[on], job, document.epoch,
            .init(generation: hosts[on].generation, gainers: fences))
    }

    private mutating func copied(
        _ pair: Envelope?, _ job: RingTransitionStateMachine.Job, _ document: RingDocument, _ driver: Int,
        _ generation: Generation, _ mutant: Mutant?
    ) {
        let isCurrent = hosts[1].record.epoch == document.epoch && hosts[1].generation == generation
        guard isCurrent || mutant == .noEpochCheck else {
            return handle(.failed(SmallModel.nodes[0], document.epoch, reason: "the gainer refuses"), for: driver)
        }
        if let pair, pair.version > hosts[1].pair?.version ?? .none || mutant == .noVersionCheck {
            hosts[1].pair = pair
        }
        handle(done(job, 0, document, generation), for: driver)
    }

    // MARK: Replicas

    private func isWithoutWhatWasVerified(_ host: Int) -> Bool {
        hosts[host].record.isWithoutWhatWasVerified(memory(of: host))
    }

    /// As `RingView` decides it.
    private func isFenced(_ host: Int) -> Bool {
        guard let transition = hosts[host].record.document?.transition,
            let fence = transition.fence(of: SmallModel.nodes[host])
        else { return false }
        return transition.step != .crossing && transition.step != .cleaning && fence != hosts[host].generation
    }

    private mutating func serve(
        _ request: Message.Request, _ client: Int, _ to: Int, _ epoch: Epoch, _ mutant: Mutant?, isDying: Bool
    ) -> Outcome {
        guard hosts[to].record.epoch == epoch || mutant == .noEpochCheck else {
            // Whoever is behind learns of the newer document.
            let coordinator = clients[client].coordinator
            if let document = hosts[to].record.document { _ = learn(document, at: coordinator) }
            if let document = hosts[coordinator].record.document { _ = learn(document, at: to) }
            return .failed(.staleRing)
        }
        if isWithoutWhatWasVerified(to) { return .failed(.notApplied(.recovering)) }
        let held = hosts[to].pair?.version
        let decision: Apply
        switch request {
        case .read where isFenced(to): return .failed(.notApplied(.recovering))
        case .read: return .record(hosts[to].pair)
        case .readVersion: return .version(held ?? .none)
        case .stamp(let envelope):
            decision = .stamped(envelope, with: hosts[to].clock.tick(wallMicroseconds: 0, after: held ?? .none))
        case .apply(let envelope), .writeBack(let envelope):
            decision = mutant == .noVersionCheck ? .store(envelope) : .fixed(envelope, over: held ?? .none)
        }
        switch decision {
        case .store(let envelope):
            if isDying {
                messages.insert(.lateStore(envelope, at: to, over: held, generation: hosts[to].generation))
                return .failed(.outcomeUnknown(.nodeUnreachable))
            }
            hosts[to].pair = envelope
            if case .stamp = request { return .stored(envelope.version) }
            return .applied(newest: envelope.version)
        case .keep(let newest): return .applied(newest: newest)
        }
    }
}
