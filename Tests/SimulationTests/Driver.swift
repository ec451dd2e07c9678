// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import TestSupport

/// Drives one ring change from one worker: the real `RingTransitionStateMachine`, its actions performed as
/// `TransitionDriver` does.
final class Driver {
    struct Mandate {
        let required: [NodeID]
        let others: [NodeID]
        let documents: [NodeID: RingDocument]
        let generations: [NodeID: Generation]

        var newest: RingDocument? { newest(among: required + others) }

        func newest(among nodes: [NodeID]) -> RingDocument? {
            nodes.compactMap { documents[$0] }.max { $0.epoch < $1.epoch }
        }
    }

    private unowned let worker: Worker
    private let world: World
    let changeID: String
    private let holder: String
    private let mandate: Mandate
    private var machine: RingTransitionStateMachine
    private var isOver = false
    private let began: Int

    init(
        _ worker: Worker, changeID: String, holder: String, mandate: Mandate, machine: RingTransitionStateMachine
    ) {
        self.worker = worker
        self.world = worker.world
        self.changeID = changeID
        self.holder = holder
        self.mandate = mandate
        self.machine = machine
        self.began = worker.world.now
    }

    var step: RingTransition.Step? { machine.document.transition?.step }

    func run(_ actions: [RingTransitionStateMachine.Action]) {
        perform(actions)
        tick()
        renewLater()
    }

    private func tick() {
        after(200 * World.millisecond) {
            if let wish = self.worker.host.memory.wish, wish.changeID == self.changeID {
                switch wish.want {
                case .abort(let reason) where self.machine.canAbort:
                    self.world.reached(self.step == .copying ? .abortedWhileCopying : .abortedWhileCrossing)
                    self.handle(.abort(reason: reason))
                case .goOn(let node) where self.machine.canGoOn(without: node):
                    self.world.reached(.wentOnWithout)
                    self.handle(.absent(node))
                case .abort, .goOn: break
                }
            }
            self.tick()
        }
    }

    private func renewLater() {
        let planned = world.now + 800 * World.millisecond
        after(800 * World.millisecond) {
            let isEstablished = self.machine.isEstablished
            let nodes = isEstablished ? self.machine.losers.sorted() : self.mandate.required
            var silent = nodes.count
            let wasStopped = self.world.now > planned + World.second
            if nodes.isEmpty { self.renewLater() }
            for node in nodes {
                self.renew(node, mayAskAnew: isEstablished) { answer in
                    silent -= 1
                    guard !self.isOver else { return }
                    if answer?.heldBy != nil {
                        if wasStopped { self.world.reached(.driverWokeAfterTakeover) }
                        return self.handle(.authorityLost)
                    }
                    if silent == 0 { self.renewLater() }
                }
            }
        }
    }

    /// A node that never promised, or whose memory has forgotten it, is asked anew.
    private func renew(
        _ node: NodeID, mayAskAnew: Bool, then next: @escaping (Worker.PromiseAnswer?) -> Void
    ) {
        Driver.promise(worker, node, holder, isRenewal: true) { answer in
            guard let answer, answer.heldBy != nil, mayAskAnew, answer.generation != self.mandate.generations[node]
            else { return next(answer) }
            Driver.promise(self.worker, node, self.holder, isRenewal: false, completion: next)
        }
    }

    private func after(_ delay: Int, _ body: @escaping () -> Void) {
        worker.after(delay) { [self] in if !isOver { body() } }
    }

    private func handle(_ event: RingTransitionStateMachine.Event) {
        guard !isOver else { return }
        let before = step
        let actions = machine.handle(event, nowMilliseconds: Int64(world.now / World.millisecond))
        if before == .settling, step == .crossing { world.reached(.fellBackToCrossing) }
        if before == .cleaning, step == .crossing { world.reached(.fellBackFromCleaning) }
        perform(actions)
    }

    private func perform(_ actions: [RingTransitionStateMachine.Action]) {
        for action in actions {
            switch action {
            case .announce(let document, let node, let wait):
                after(wait * World.millisecond) { self.announce(document, to: node) }
            case .tell(let document, let node):
                worker.call(node, timeout: 1500 * World.millisecond, mayRepeat: true) {
                    $0.exchange(document, $1)
                } completion: { (_: Worker.Exchange?, _) in
                }
            case .run(let job, let node, let document, let wait):
                after(wait * World.millisecond) { self.run(job, on: node, document) }
            case .end(let end): return over(end)
            }
        }
        if world.has(.cleansTooEarly), step == .settling {
            for node in machine.losers { cleanEarly(node, machine.document) }
        }
    }

    private func over(_ end: RingTransitionStateMachine.End) {
        guard !isOver else { return }
        isOver = true
        world.note("driver \(holder) ends: \(end)")
        if case .finished(let document) = end, document.lastChange?.outcome == .completed {
            world.reached(.changeCompleted)
        }
        if worker.driver === self { worker.driver = nil }
        for node in Set(mandate.required + mandate.others).sorted() { Driver.release(worker, node, holder) }
    }

    private func announce(_ document: RingDocument, to node: NodeID) {
        let needsPromise = machine.needsPromise(of: node)
        let holder = holder
        worker.call(node, timeout: 2500 * World.millisecond, mayRepeat: true) {
            $0.announce(document, by: holder, needsPromise: needsPromise, $1)
        } completion: { (answer: Worker.AnnouncementAnswer?, _) in
            guard !self.isOver else { return }
            guard let answer else { return self.handle(.failed(node, document.epoch, reason: "no answer")) }
            if answer.state == .adopted || answer.state == .lostWhatWasVerified {
                self.world.host(node)?.wasHeard(standingOn: document.epoch)
            }
            switch answer.state {
            case .adopted:
                self.handle(.adopted(node, document.epoch, self.generation(of: node, answer.generation)))
            case .draining: self.handle(.failed(node, document.epoch, reason: "draining", answer.generation))
            case .lostWhatWasVerified: self.handle(.lostWhatWasVerified(node, document.epoch))
            case .notPromised: self.handle(.failed(node, document.epoch, reason: "not promised"))
            case .overtaken: self.handle(.overtaken(node, document.epoch))
            }
        }
    }

    /// The mutant takes the memory that it expects for the one that is there.
    private func generation(of node: NodeID, _ generation: Generation) -> Generation {
        guard world.has(.noGenerationFence) else { return generation }
        return machine.document.transition?.fence(of: node) ?? generation
    }

    private func run(_ job: RingTransitionStateMachine.Job, on node: NodeID, _ document: RingDocument) {
        let changeID = changeID
        worker.call(node, timeout: 1500 * World.millisecond, mayRepeat: true) {
            $0.job(.change(job), document, changeID: changeID, $1)
        } completion: { (answer: Worker.JobAnswer?, _) in
            guard !self.isOver else { return }
            switch answer?.state {
            case .done:
                guard let report = answer?.report else { return }
                self.handle(.jobDone(node, job, document.epoch, report))
            case .running: self.after(100 * World.millisecond) { self.run(job, on: node, document) }
            case .overtaken: self.handle(.overtaken(node, document.epoch))
            case .failed, nil:
                self.handle(.failed(node, document.epoch, reason: "the job failed", answer?.generation))
            }
        }
    }

    /// The mutant's: deletes at the losers what the gainers have.
    private func cleanEarly(_ node: NodeID, _ document: RingDocument) {
        guard let host = world.host(node), let transition = document.transition else { return }
        world.after(world.random.pick(1...20) * World.millisecond) { [weak host] in
            guard let host else { return }
            for key in host.memory.pairs.keys
            where !transition.to.preferenceList(
                of: key.slot, count: self.world.options.replicas
            ).contains(node) {
                host.memory.pairs[key] = nil
            }
        }
    }

    // MARK: Authority

    static func promise(
        _ worker: Worker, _ node: NodeID, _ holder: String, isRenewal: Bool,
        completion: @escaping (Worker.PromiseAnswer?) -> Void
    ) {
        worker.call(node, timeout: World.second, mayRepeat: true) {
            $0.promise(to: holder, isRenewal: isRenewal, $1)
        } completion: { answer, _ in
            completion(answer)
        }
    }

    static func release(_ worker: Worker, _ node: NodeID, _ holder: String) {
        worker.call(node, timeout: World.second, mayRepeat: true) { other, reply in
            other.release(holder)
            reply(true)
        } completion: { (_: Bool?, _) in
        }
    }

    enum Refusal { case heldBy(String), unreachable }

    /// Asks each node in its order for its promise, as `EmbeddedRingAuthority` does.
    static func acquire(
        _ worker: Worker, _ holder: String, required: [NodeID], others: [NodeID],
        completion: @escaping (Mandate?, Refusal?) -> Void
    ) {
        var documents: [NodeID: RingDocument] = [:]
        var generations: [NodeID: Generation] = [:]
        var asked: [NodeID] = []
        func giveUp(_ refusal: Refusal) {
            for node in asked { release(worker, node, holder) }
            completion(nil, refusal)
        }
        func ask(_ rest: ArraySlice<NodeID>) {
            guard let node = rest.first else {
                let mandate = Mandate(
                    required: required, others: others, documents: documents, generations: generations)
                return completion(mandate, nil)
            }
            let isRequired = required.contains(node)
            promise(worker, node, holder, isRenewal: false) { answer in
                if let answer {
                    asked.append(node)
                    generations[node] = answer.generation
                    documents[node] = answer.document
                    if let other = answer.heldBy, isRequired { return giveUp(.heldBy(other)) }
                } else if isRequired {
                    return giveUp(.unreachable)
                }
                ask(rest.dropFirst())
            }
        }
        ask((Set(required).sorted() + Set(others).subtracting(required).sorted())[...])
    }
}
