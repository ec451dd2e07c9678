// SPDX-License-Identifier: Apache-2.0

package import HashRing
private import KeyValue
package import Logging
internal import NIOCore

/// What operators ask of the ring, on this worker: install, change, abort; and the chore of taking over a change whose
/// driver is gone.
package actor RingOperator {
    package struct Dependencies: Sendable {
        package let node: NodeID
        package let keeper: RingKeeper
        package let authority: any RingAuthority
        package let peers: PeerCaller
        package let driver: TransitionDriver.Dependencies
        package let logger: Logger
        /// Starts something in the background; false where the worker is leaving.
        package let start: @Sendable (_ work: @escaping @Sendable () async -> Void) -> Bool

        package init(
            node: NodeID, keeper: RingKeeper, authority: any RingAuthority, peers: PeerCaller,
            driver: TransitionDriver.Dependencies, logger: Logger,
            start: @escaping @Sendable (_ work: @escaping @Sendable () async -> Void) -> Bool
        ) {
            self.node = node
            self.keeper = keeper
            self.authority = authority
            self.peers = peers
            self.driver = driver
            self.logger = logger
            self.start = start
        }
    }

    static let pollInterval = Duration.milliseconds(25)
    /// How long a change waits for another driver to show what it is about to do.
    private static let contentionTime = Duration.seconds(2)
    static let callTimeout = TimeAmount.milliseconds(1000)
    /// How long an answer waits for nodes that have not heard of the change's end.
    private static let tellingTime = Duration.seconds(5)
    /// How often a change looks at the ring again because another node knew a newer one.
    private static let looks = 8
    /// How many requests may wait for a change's end; each takes one of the places that other nodes' calls need, too.
    private static let mostWaiting = 32

    let with: Dependencies
    private var driver: TransitionDriver?
    /// How the changes ended that this worker drove and that never came to be.
    private var notBegun: [String: String] = [:]
    private var waiting = 0

    package init(_ dependencies: Dependencies) { self.with = dependencies }

    // MARK: Install

    package func install(_ ring: Ring, replicas: Int, standbys: [NodeID]) async throws(OperatorError) {
        let answer: HostRingRecord.InstallAnswer
        do {
            answer = try await with.authority.install(ring, replicas: replicas, standbys: standbys)
        } catch RingKeeper.Failure.unsettled(let error) {
            throw .unknown("the ring may be installed: \(error)")
        } catch let failure as RingKeeper.Failure where failure.isOfAnotherCluster {
            throw .ringsDisagree(
                "\(failure); a node that stands by there is taken out first: install that ring there without it, then empty its state directory and its memcached"
            )
        } catch RingAuthorityError.unavailable(let reason) {
            throw .unreachable(reason)
        } catch RingAuthorityError.foreign(let key) {
            throw .ringsDisagree(
                "the ring in etcd under \(key) names none of these nodes; give this cluster an etcdPrefix of its own")
        } catch {
            throw .unreachable("this node's memcached or disk: \(error)")
        }
        switch answer {
        case .installed, .unchanged: return
        case .busy: throw .busy(description(of: await with.keeper.document))
        }
    }

    // MARK: Change

    /// - Parameters:
    ///   - isForced: goes on without the node that is to leave, should it not answer, and finishes a change that waits
    ///     for it. What only it held is lost.
    ///   - gone: further nodes that it goes on without, should they not answer.
    /// - Returns: what was lost on the way, where something was.
    package func change(_ request: ChangeRequest, isForced: Bool, without gone: Set<NodeID> = [])
        async throws(OperatorError)
        -> String?
    {
        var giveUp = ContinuousClock.now + RingOperator.contentionTime
        var looks = 0
        while true {
            try? await with.keeper.refresh()
            guard let document = await with.keeper.document else { throw .noRing }
            if let transition = document.transition {
                var goesOnWithout = false
                if isForced, let leaver = request.leaver {
                    goesOnWithout = try await goOn(transition, without: leaver)
                }
                for node in gone.sorted() {
                    goesOnWithout = try await goOn(transition, without: node) || goesOnWithout
                }
                if request.isMet(by: transition.change), transition.abortReason == nil {
                    return try await wait(forEndOf: transition.id)
                }
                guard goesOnWithout else { throw .busy(description(of: document)) }
                // It has kept this change from beginning.
                do throws(OperatorError) {
                    _ = try await wait(forEndOf: transition.id)
                } catch .aborted {
                    // Where it was joining, all is done that was asked for.
                    if case .exactly(.remove(let node)) = request, transition.change.joiner == node { return nil }
                }
                // Its driver keeps the promises until all have heard of the end, or had the time to.
                giveUp = .now + RingOperator.tellingTime
                continue
            }
            if request.isMade(in: document) { return nil }
            let change: RingChange
            do {
                // Picked anew at every look: it is this very ring that the members promise to change.
                change = try request.change(of: document.ring)
                _ = try change.applied(to: document.ring)
            } catch {
                throw .refused(error)
            }
            switch try await begin(change, isForced: isForced, without: gone, on: document) {
            case .begun(let id): return try await wait(forEndOf: id)
            case .lookAgain:
                looks += 1
                guard looks < RingOperator.looks else {
                    throw .ringsDisagree(
                        "the nodes do not agree on one ring; install it again on every node (deploy/reconfigure.sh)")
                }
                try? await Task.sleep(for: .milliseconds(.random(in: 50...150)))
            case .contended(let holder):
                guard ContinuousClock.now < giveUp else {
                    throw .busy("another ring change is about to begin, driven by \(holder)")
                }
                try? await Task.sleep(for: .milliseconds(.random(in: 50...150)))
            }
        }
    }

    private enum Beginning {
        case begun(String)
        /// A newer ring turned up.
        case lookAgain
        case contended(String)
    }

    private func begin(
        _ change: RingChange, isForced: Bool, without gone: Set<NodeID>, on document: RingDocument
    ) async throws(OperatorError) -> Beginning {
        let id = RingOperator.randomName()
        let holder = "\(with.node)/\(id), \(RingOperator.words(for: change))"
        let members = Set(document.ring.nodes + [change.node])
        let mandate: RingMandate
        var absent: [NodeID] = []
        do {
            (mandate, absent) = try await mandateOf(
                members, change, isForced: isForced, without: gone, holder, document)
        } catch {
            switch error {
            case .held(_, let other): return .contended(other)
            case .unreachable(let node, let reason) where node == change.leaver:
                throw .unreachable("\(node): \(reason); with ?force=1 the ring goes on without it")
            case .unreachable(let node, let reason):
                // (Only of a change that can do without it.)
                let hint =
                    change.leaver == nil
                    ? "" : "; with ?force=1&without=\(node) it goes on without it, if it is gone for good"
                throw .unreachable("\(node): \(reason)\(hint)")
            case .unavailable(let reason): throw .unreachable(reason)
            case .foreign(let key): throw .ringsDisagree("the ring in etcd under \(key) is another cluster's")
            }
        }
        let others = members.filter { $0 != change.node || document.ring.contains($0) }
        let newest = mandate.newest(among: others.sorted())
        if let foreign = mandate.documents[change.node], foreign != newest,
            foreign.epoch >= newest?.epoch ?? .none || newest.map({ !$0.isOfOneCluster(with: foreign) }) ?? false
        {
            await with.authority.release(holder, mandate)
            throw .ringsDisagree(
                "\(change.node) knows another ring (epoch \(foreign.epoch)); empty its state directory and its memcached first"
            )
        }
        guard mandate.newest == document else {
            if let newest = mandate.newest { try? await with.keeper.learn(newest) }
            await with.authority.release(holder, mandate)
            return .lookAgain
        }
        do {
            let (machine, actions) = try RingTransitionStateMachine.beginning(
                change, id: id, document: document, generations: mandate.generations, absent: absent,
                nowMilliseconds: with.driver.milliseconds())
            await drive(id, holder, mandate, machine, actions)
            return .begun(id)
        } catch {
            await with.authority.release(holder, mandate)
            throw .refused(error)
        }
    }

    private func drive(
        _ id: String, _ holder: String, _ mandate: RingMandate, _ machine: RingTransitionStateMachine,
        _ actions: [RingTransitionStateMachine.Action]
    ) async {
        let driver = TransitionDriver(
            changeID: id, holder: holder, mandate: mandate, machine: machine, with.driver)
        self.driver = driver
        with.logger.info("driving a ring change", metadata: ["ring.change": "\(id)"])
        let isStarted = with.start { [self] in
            let end = await driver.run(actions)
            await ended(id, end)
        }
        if !isStarted {
            self.driver = nil
            // (One that was taken over goes on, with another driver.)
            if !machine.isEstablished { notBegun[id] = "this worker is leaving" }
            await with.authority.release(holder, mandate)
        }
    }

    private func ended(_ id: String, _ end: RingTransitionStateMachine.End) {
        if driver?.changeID == id { driver = nil }
        switch end {
        case .finished(let document):
            with.logger.info(
                "the ring change is over",
                metadata: [
                    "ring.change": "\(id)", "ring.epoch": "\(document.epoch)",
                    "ring.outcome": "\(document.lastChange?.outcome.rawValue ?? "")",
                    "ring.reason": "\(document.lastChange?.reason ?? "")",
                ])
        case .notBegun(let node, let reason):
            notBegun[id] = "\(node): \(reason)"
            with.logger.warning(
                "the ring change could not begin", metadata: ["peer.node": "\(node)", "error": "\(reason)"])
        case .overtaken:
            with.logger.notice("another driver has taken over the ring change", metadata: ["ring.change": "\(id)"])
        }
    }

    /// Returns once the change is over, whoever drives it.
    /// - Returns: what was lost on the way, where something was.
    private func wait(forEndOf id: String) async throws(OperatorError) -> String? {
        guard waiting < RingOperator.mostWaiting else {
            throw .unknown("too many requests wait for the ring change \(id) here; see /status")
        }
        waiting += 1
        defer { waiting -= 1 }
        var heardAt: ContinuousClock.Instant?
        while true {
            if let reason = notBegun.removeValue(forKey: id) { throw .unreachable(reason) }
            let document = await with.keeper.document
            // (Once all have heard of the end, or had the time to: whoever asks another node next finds it there.)
            if document?.lastChange?.id == id, heardAt == nil { heardAt = .now }
            let isTold = driver?.changeID != id || heardAt.map { .now - $0 > RingOperator.tellingTime } ?? false
            if let last = document?.lastChange, last.id == id, isTold {
                switch last.outcome {
                case .completed: return last.reason.isEmpty ? nil : last.reason
                case .aborted: throw .aborted(last.reason)
                }
            }
            if document?.transition?.id != id, driver?.changeID != id {
                try? await with.keeper.refresh()
                let newest = await with.keeper.document
                if newest?.transition?.id != id, newest?.lastChange?.id != id {
                    throw .unknown("the ring has changed further since; see /status")
                }
            }
            do {
                try await Task.sleep(for: RingOperator.pollInterval)
            } catch {
                throw .unknown("this node is being stopped; the ring change \(id) goes on")
            }
        }
    }

    // MARK: Abort

    package func abortChange() async throws(OperatorError) {
        try? await with.keeper.refresh()
        guard let document = await with.keeper.document else { throw .noRing }
        guard let transition = document.transition else { throw .nothingToAbort("no ring change is under way") }
        if transition.abortReason == nil {
            guard !transition.hasSettled, transition.step == .copying || transition.step == .crossing else {
                throw .nothingToAbort(
                    "the ring change \(transition.id) is past the point of return (\(transition.step.rawValue))")
            }
            try await leave(
                .abort(reason: "aborted by an operator"), for: transition,
                with: document.members + document.standbys)
        }
        do {
            _ = try await wait(forEndOf: transition.id)
        } catch .aborted {
            return
        }
        throw .nothingToAbort("the ring change \(transition.id) was completed before it could be aborted")
    }

    /// Leaves the wish with every member, where whoever drives the change, now or after a takeover, looks for it.
    func leave(
        _ want: PeerMessage.ChangeWish.Want, for transition: RingTransition, with hearers: [NodeID]
    ) async throws(OperatorError) {
        let wish = PeerMessage.ChangeWish(changeID: transition.id, want: want)
        var heard = 0
        for node in Set(hearers + [with.node]).sorted() {
            do {
                if node == with.node {
                    try await with.driver.local.leave(wish)
                } else {
                    let _: Done = try await with.peers.call(node, "wish", wish, timeout: RingOperator.callTimeout)
                }
                heard += 1
            } catch {
                with.logger.warning(
                    "a node did not hear what is wanted of the ring change",
                    metadata: ["peer.node": "\(node)", "error": "\(error)"])
            }
        }
        if heard == 0 { throw .unknown("no member said that it has heard what is wanted") }
    }

    // MARK: Take over

    /// Goes on with a change whose driver has let its promise expire.
    package func takeOverIfOrphaned() async {
        guard driver == nil, let document = await with.keeper.document, let transition = document.transition,
            case .some(.none) = try? await with.keeper.promiseHolder()
        else { return }
        let holder = "\(with.node)/\(RingOperator.randomName())"
        // Whose word it would need may be gone for good.
        let wishes = await with.driver.board.wishes(for: transition.id)
        guard let mandate = await authorityToTakeOver(transition.heeding(wishes), document, holder) else { return }
        guard driver == nil, let newest = mandate.newest, newest.transition?.id == transition.id else {
            if let newest = mandate.newest { try? await with.keeper.learn(newest) }
            await with.authority.release(holder, mandate)
            return
        }
        var (machine, actions) = RingTransitionStateMachine.resuming(
            newest, nowMilliseconds: with.driver.milliseconds())
        for case .goOn(let node) in wishes where machine.canGoOn(without: node) {
            actions = machine.handle(.absent(node), nowMilliseconds: with.driver.milliseconds())
        }
        with.logger.notice(
            "taking over a ring change whose driver is gone", metadata: ["ring.change": "\(transition.id)"])
        await drive(transition.id, holder, mandate, machine, actions)
    }

    /// The losers' word; where one is silent, a clean-up needs nobody's, for it is bound to end in one document,
    /// whoever finishes it.
    private func authorityToTakeOver(
        _ transition: RingTransition, _ document: RingDocument, _ holder: String
    ) async -> RingMandate? {
        let losers = MovePlan(transition, replicas: document.replicas).losers
        let others = document.members.filter { !losers.contains($0) }
        do throws(RingAuthorityError) {
            return try await with.authority.acquire(
                RingClaim(holder: holder, required: losers, members: [], others: others))
        } catch .unreachable where transition.step == .cleaning {
            return try? await with.authority.acquire(
                RingClaim(holder: holder, required: [], members: [], others: document.members))
        } catch {
            return nil
        }
    }

    private func description(of document: RingDocument?) -> String {
        guard let transition = document?.transition else { return "a ring change is about to begin" }
        let what = RingOperator.words(for: transition.change)
        return "\(what) is under way (change \(transition.id), \(transition.step.rawValue))"
    }

    private static func words(for change: RingChange) -> String {
        switch change {
        case .add(let node, let positions) where positions.count == 1: "adding \(node) at \(positions[0])"
        case .add(let node, let positions): "adding \(node) at \(positions.count) positions"
        case .remove(let node): "removing \(node)"
        case .replace(let old, let new): "replacing \(old) by \(new)"
        }
    }

    private static func randomName() -> String { String(UInt64.random(in: 1 << 60 ... .max), radix: 16) }
}

extension RingTransition {
    /// As it would be if the wishes were taken up.
    fileprivate func heeding(_ wishes: [PeerMessage.ChangeWish.Want]) -> RingTransition {
        guard step != .cleaning else { return self }
        var heeded = self
        for case .goOn(let node) in wishes where !heeded.absent.contains(node) {
            heeded.absent = (heeded.absent + [node]).sorted()
        }
        return heeded
    }
}

extension PeerMessage.ChangeWish.Want {
    /// Nil where it would not be heeded, or was before.
    func event(for machine: RingTransitionStateMachine) -> RingTransitionStateMachine.Event? {
        switch self {
        case .abort(let reason): machine.canAbort ? .abort(reason: reason) : nil
        case .goOn(let node): machine.canGoOn(without: node) ? .absent(node) : nil
        }
    }
}
