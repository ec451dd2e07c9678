// SPDX-License-Identifier: Apache-2.0

package import HashRing
private import KeyValue
package import Logging
private import NIOCore

/// Performs what `RingTransitionStateMachine` says, for one ring change, from one worker, while it holds the authority.
/// Dies with its worker; another one goes on from the document.
package actor TransitionDriver {
    package struct Dependencies: Sendable {
        package let node: NodeID
        package let authority: any RingAuthority
        package let local: PeerService
        package let peers: PeerCaller
        package let board: ChangeBoard
        package let failpoints: Failpoints
        package let logger: Logger
        package let milliseconds: @Sendable () -> Int64

        package init(
            node: NodeID, authority: any RingAuthority, local: PeerService, peers: PeerCaller, board: ChangeBoard,
            failpoints: Failpoints, logger: Logger, milliseconds: @escaping @Sendable () -> Int64
        ) {
            self.node = node
            self.authority = authority
            self.local = local
            self.peers = peers
            self.board = board
            self.failpoints = failpoints
            self.logger = logger
            self.milliseconds = milliseconds
        }
    }

    private static let announcementTimeout = TimeAmount.milliseconds(2500)
    private static let jobTimeout = TimeAmount.milliseconds(1500)
    private static let jobPollInterval = Duration.milliseconds(100)
    private static let tickInterval = Duration.milliseconds(200)
    private static let renewalInterval = Duration.milliseconds(800)
    private static let recordRetryInterval = Duration.milliseconds(250)

    package nonisolated let changeID: String
    private let holder: String
    private var mandate: RingMandate
    private let with: Dependencies
    private var machine: RingTransitionStateMachine
    /// What is to be done once the machine's newest document is recorded.
    private var waiting: (epoch: Epoch, actions: [RingTransitionStateMachine.Action]) = (.none, [])
    private var recording: Recording

    /// One document at a time is recorded with the authority.
    private enum Recording {
        /// Up to this one.
        case done(Epoch)
        /// Since when it is tried.
        case underway(sinceMilliseconds: Int64)
    }
    private var progress: [NodeID: JobProgress] = [:]

    private enum Input: Sendable {
        case event(RingTransitionStateMachine.Event)
        /// Time to say how far the change is; and perhaps an operator wants something of it.
        case tick([PeerMessage.ChangeWish.Want])
        case authorityLost
        case authorityKept
        case recorded(RingDocument, RingMandate)
        case notRecorded(reason: String)
        case nothing
    }

    package init(
        changeID: String, holder: String, mandate: RingMandate, machine: RingTransitionStateMachine,
        _ dependencies: Dependencies
    ) {
        self.changeID = changeID
        self.holder = holder
        self.mandate = mandate
        self.machine = machine
        self.with = dependencies
        self.recording = .done(mandate.entry?.document == machine.document ? machine.document.epoch : .none)
    }

    /// Drives the change to its end.
    package func run(_ actions: [RingTransitionStateMachine.Action]) async -> RingTransitionStateMachine.End {
        let end = await withTaskGroup(of: Input.self) { group in
            if let end = await settle(actions, in: &group) { return end }
            group.addTask { [self] in await tick() }
            group.addTask { await Self.pause(Self.renewalInterval, then: .authorityKept) }
            while let input = await group.next() {
                // This worker is leaving; another one goes on from the document.
                if Task.isCancelled {
                    group.cancelAll()
                    return .overtaken
                }
                let next: [RingTransitionStateMachine.Action]
                switch input {
                case .nothing: continue
                case .event(let event): next = await handle(event)
                case .authorityLost: next = await handle(.authorityLost)
                case .recorded(let document, let mandate):
                    self.mandate = mandate
                    recording = .done(document.epoch)
                    // (Unless a newer one has been made since; then that is recorded first.)
                    next = waiting.actions
                    waiting.actions = []
                case .notRecorded(let reason):
                    if let end = giveUp(recordingFailed: reason) {
                        group.cancelAll()
                        return end
                    }
                    record(afterPause: true, in: &group)
                    continue
                case .tick(let wishes):
                    group.addTask { [self] in await tick() }
                    guard let event = wishes.lazy.compactMap({ $0.event(for: self.machine) }).first else { continue }
                    next = await handle(event)
                case .authorityKept:
                    let (authority, holder, isEstablished) = (with.authority, holder, machine.isEstablished)
                    let mandate = mandate
                    // Once a document is out, the losers' word is what others would need, too.
                    let nodes = isEstablished ? machine.losers.sorted() : mandate.required
                    group.addTask {
                        guard await authority.renew(holder, mandate, nodes, mayAskAnew: isEstablished) else {
                            return .authorityLost
                        }
                        return await Self.pause(Self.renewalInterval, then: .authorityKept)
                    }
                    continue
                }
                if let end = await settle(next, in: &group) {
                    group.cancelAll()
                    return end
                }
            }
            return .overtaken
        }
        // Also where another driver has taken over, or this worker is leaving: only one's own promises are given back,
        // and without that the next driver would wait until they expire.
        await with.authority.release(holder, mandate)
        return end
    }

    /// Performs the actions, once the document that they are about is recorded with the authority: nobody is told of
    /// one that is not.
    private func settle(
        _ actions: [RingTransitionStateMachine.Action], in group: inout TaskGroup<Input>
    ) async -> RingTransitionStateMachine.End? {
        if case .done(let epoch) = recording, epoch == machine.document.epoch {
            return await perform(actions, in: &group)
        }
        for action in actions { if case .end(let end) = action { return end } }
        // Those for a document that was never recorded are of no use any more.
        if waiting.epoch != machine.document.epoch { waiting = (machine.document.epoch, []) }
        waiting.actions += actions
        if case .done = recording { record(afterPause: false, in: &group) }
        return nil
    }

    private func record(afterPause isRetry: Bool, in group: inout TaskGroup<Input>) {
        if case .done = recording { recording = .underway(sinceMilliseconds: with.milliseconds()) }
        let (authority, holder, mandate, document) = (with.authority, holder, mandate, machine.document)
        group.addTask { [failpoints = with.failpoints] in
            do {
                if isRetry { try await Task.sleep(for: TransitionDriver.recordRetryInterval) }
                guard let next = try await authority.record(document, by: holder, mandate) else {
                    return .authorityLost
                }
                try await failpoints.hit(document.transition.map { "ring.recorded.\($0.step)" } ?? "ring.recorded")
                return .recorded(document, next)
            } catch RingAuthorityError.unavailable(let reason) {
                return .notRecorded(reason: reason)
            } catch {
                return .notRecorded(reason: "\(error)")
            }
        }
    }

    /// How it ends where the authority's store has been away for long: whoever finds it back goes on.
    private func giveUp(recordingFailed reason: String) -> RingTransitionStateMachine.End? {
        guard case .underway(let since) = recording else { return nil }
        with.logger.warning(
            "a ring document can't be recorded yet",
            metadata: ["ring.change": "\(changeID)", "ring.epoch": "\(machine.document.epoch)", "error": "\(reason)"])
        return with.milliseconds() - since < RingTransitionStateMachine.patienceMilliseconds ? nil : .overtaken
    }

    private func tick() async -> Input {
        guard (try? await Task.sleep(for: TransitionDriver.tickInterval)) != nil else { return .nothing }
        await with.board.show(
            ChangeBoard.Entry(changeID: changeID, progress: progress.map { .init(node: $0, job: $1) }))
        return .tick(await with.board.wishes(for: changeID))
    }

    private static func pause(_ duration: Duration, then input: Input) async -> Input {
        do {
            try await Task.sleep(for: duration)
            return input
        } catch {
            return .nothing
        }
    }

    private func handle(_ event: RingTransitionStateMachine.Event) async -> [RingTransitionStateMachine.Action] {
        if case .failed(let node, _, let reason, _) = event {
            with.logger.debug(
                "a node could not do its part yet", metadata: ["peer.node": "\(node)", "error": "\(reason)"])
        }
        let (epoch, step) = (machine.document.epoch, machine.document.transition?.step)
        let actions = machine.handle(event, nowMilliseconds: with.milliseconds())
        let isWorking = actions.contains { if case .run(_, _, _, 0) = $0 { true } else { false } }
        if let step, isWorking || machine.document.epoch != epoch {
            do {
                if isWorking || step == .settling || step == .retreating {
                    try await with.failpoints.hit("ring.announced.\(step)")
                }
            } catch {
                return [.end(.overtaken)]
            }
        }
        if machine.document.epoch != epoch { logStep() }
        return actions
    }

    private func logStep() {
        let document = machine.document
        with.logger.info(
            "the ring change goes on",
            metadata: [
                "ring.change": "\(changeID)", "ring.epoch": "\(document.epoch)",
                "ring.step": "\(document.transition?.step.rawValue ?? "done")",
            ])
    }

    /// - Returns: how the change ended, once it has.
    private func perform(
        _ actions: [RingTransitionStateMachine.Action], in group: inout TaskGroup<Input>
    ) async -> RingTransitionStateMachine.End? {
        for action in actions {
            switch action {
            case .announce(let document, let node, let wait):
                let needsPromise = machine.needsPromise(of: node)
                group.addTask { [self] in
                    .event(await announce(document, to: node, needsPromise: needsPromise, afterMilliseconds: wait))
                }
            case .tell(let document, let node):
                group.addTask { [self] in
                    await tell(document, node)
                    return .nothing
                }
            case .run(let job, let node, let document, let wait):
                group.addTask { [self] in .event(await run(job, on: node, document, afterMilliseconds: wait)) }
            case .end(let end): return end
            }
        }
        return nil
    }

    private func announce(
        _ document: RingDocument, to node: NodeID, needsPromise: Bool, afterMilliseconds wait: Int
    ) async -> RingTransitionStateMachine.Event {
        do {
            try await Task.sleep(for: .milliseconds(wait))
            let name = document.transition.map { "ring.announce.\($0.step)" } ?? "ring.finish"
            if machine.losers.contains(node), wait == 0 { try await with.failpoints.hit(name) }
            let message = PeerMessage.Announcement(document: document, holder: holder, needsPromise: needsPromise)
            let answer =
                node == with.node
                ? try await with.local.announce(message)
                : try await with.peers.call(
                    node, "announce", message, timeout: TransitionDriver.announcementTimeout)
            switch answer.state {
            case .adopted: return .adopted(node, document.epoch, answer.generation)
            case .draining:
                return .failed(
                    node, document.epoch, reason: "its workers still act on the ring before", answer.generation)
            case .recovering:
                return .failed(node, document.epoch, reason: "its memory is being refilled", answer.generation)
            case .lostWhatWasVerified: return .lostWhatWasVerified(node, document.epoch)
            case .notPromised:
                // Its memory may have forgotten the promise; the next renewal either gets it again or learns who has
                // it.
                return .failed(node, document.epoch, reason: "it has promised nothing to this driver")
            case .overtaken: return .overtaken(node, document.epoch)
            }
        } catch {
            return .failed(node, document.epoch, reason: "\(error)")
        }
    }

    private func tell(_ document: RingDocument, _ node: NodeID) async {
        let message = PeerMessage.RingExchange(document: document, generation: nil, clock: 0)
        let _: PeerMessage.RingExchange? = try? await with.peers.call(
            node, "ring", message, timeout: TransitionDriver.jobTimeout)
    }

    /// Starts the job, or finds it running, and waits for its end.
    private func run(
        _ job: RingTransitionStateMachine.Job, on node: NodeID, _ document: RingDocument, afterMilliseconds wait: Int
    ) async -> RingTransitionStateMachine.Event {
        let request = PeerMessage.JobRequest(document: document, changeID: changeID, kind: .change(job))
        do {
            try await Task.sleep(for: .milliseconds(wait))
            if document.transition == nil, wait == 0 { try await with.failpoints.hit("ring.prepare") }
            while true {
                let answer =
                    node == with.node
                    ? try await with.local.job(request)
                    : try await with.peers.call(node, "job", request, timeout: TransitionDriver.jobTimeout)
                progress[node] = answer.progress
                switch answer.state {
                case .done:
                    guard let report = answer.report else {
                        return .failed(node, document.epoch, reason: "done, but on which memory it does not say")
                    }
                    return .jobDone(node, job, document.epoch, report)
                case .failed:
                    return .failed(
                        node, document.epoch, reason: answer.error ?? "it does not say why", answer.generation)
                case .overtaken: return .overtaken(node, document.epoch)
                case .running: try await Task.sleep(for: TransitionDriver.jobPollInterval)
                }
            }
        } catch {
            return .failed(node, document.epoch, reason: "\(error)")
        }
    }
}
