// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import TestSupport

/// What starts changes, aborts them and takes them over: as `RingOperator` and the chores of `Housekeeping` do it.
extension Worker {
    /// - Parameter isForced: goes on without the node that leaves, which is gone for good.
    func change(_ change: RingChange, isForced: Bool = false, tries: Int = 20) {
        guard tries > 0 else { return }
        refresh()
        after(5 * World.millisecond) {
            guard let document = self.document else { return }
            func again(_ milliseconds: ClosedRange<Int>) {
                self.after(self.world.random.pick(milliseconds) * World.millisecond) {
                    self.change(change, isForced: isForced, tries: tries - 1)
                }
            }
            if let transition = document.transition {
                guard isForced, let leaver = change.leaver else { return }
                if !transition.absent.contains(leaver) { self.leave(.goOn(without: leaver), transition, document) }
                return again(500...1000)
            }
            guard (try? change.applied(to: document.ring)) != nil else { return }
            let id = self.world.nextName()
            let members = Set(document.ring.nodes + [change.node]).sorted()
            let absent = isForced ? [change.leaver].compactMap { $0 } : []
            let holder = "\(self.node)/\(id)"
            Driver.acquire(
                self, holder, required: members.filter { !absent.contains($0) }, others: absent
            ) { mandate, refusal in
                guard let mandate else {
                    guard case .heldBy = refusal else { return isForced ? again(500...1000) : () }
                    self.world.reached(.changesContended)
                    return again(50...150)
                }
                func giveBack() { for node in mandate.required { Driver.release(self, node, holder) } }
                guard mandate.newest == document, self.driver == nil else {
                    giveBack()
                    if let newest = mandate.newest { self.learn(newest) }
                    return again(100...100)
                }
                guard
                    let (machine, actions) = try? RingTransitionStateMachine.beginning(
                        change, id: id, document: document, generations: mandate.generations, absent: absent,
                        nowMilliseconds: Int64(self.world.now / World.millisecond))
                else { return giveBack() }
                self.world.note("change \(change) begins at \(holder)")
                if isForced { self.world.reached(.removedWithoutItsHelp) }
                let driver = Driver(self, changeID: id, holder: holder, mandate: mandate, machine: machine)
                self.driver = driver
                driver.run(actions)
            }
        }
    }

    func abortChange() {
        guard let document, let transition = document.transition, transition.abortReason == nil else { return }
        leave(.abort(reason: "aborted by an operator"), transition, document)
    }

    /// Leaves the wish with every member.
    private func leave(
        _ want: PeerMessage.ChangeWish.Want, _ transition: RingTransition, _ document: RingDocument
    ) {
        for member in document.members {
            call(member, timeout: World.second, mayRepeat: true) { other, reply in
                other.host.memory.wish = (transition.id, want)
                reply(true)
            } completion: { (_: Bool?, _) in
            }
        }
    }

    // MARK: Chores

    func choresLater() {
        after(World.second) { self.choresLater() }
        guard !host.isHanging else { return }
        let lease = host.memory.choresLease
        if let lease, lease.process != process, lease.until > world.now { return }
        host.memory.choresLease = (process, world.now + 3 * World.second)
        exchangeRings()
        takeOverIfOrphaned()
        sweep()
    }

    private func exchangeRings() {
        guard let document else { return }
        for other in Set(document.members + document.standbys).subtracting([node]).sorted() {
            call(other, timeout: 500 * World.millisecond, mayRepeat: true) {
                $0.exchange(nil, $1)
            } completion: { answer, _ in
                guard let answer, let ours = self.document else { return }
                self.merge(answer.clock)
                let theirs = answer.document?.epoch ?? .none
                if theirs > ours.epoch, let newer = answer.document {
                    self.learn(newer)
                } else if theirs < ours.epoch {
                    self.tell(other)
                }
            }
        }
    }

    /// Goes on with a change whose driver has let its promise expire.
    private func takeOverIfOrphaned() {
        guard driver == nil, let document, let transition = document.transition, host.memory.record != nil,
            promiseHolder() == nil
        else { return }
        var heeded = transition
        var gone: NodeID?
        if case (transition.id, .goOn(let node))? = host.memory.wish, !transition.absent.contains(node) {
            gone = node
            heeded.absent = (heeded.absent + [node]).sorted()
        }
        let losers = transition.step == .cleaning ? [] : MovePlan(heeded, replicas: document.replicas).losers
        let others = document.members.filter { !losers.contains($0) }
        let holder = "\(node)/\(world.nextName())"
        Driver.acquire(self, holder, required: losers, others: others) { mandate, _ in
            guard let mandate else { return }
            guard self.driver == nil, let newest = mandate.newest, newest.transition?.id == transition.id else {
                if let newest = mandate.newest { self.learn(newest) }
                for node in losers + others { Driver.release(self, node, holder) }
                return
            }
            switch newest.transition?.step {
            case .copying: self.world.reached(.takeoverWhileCopying)
            case .crossing: self.world.reached(.takeoverWhileCrossing)
            case .settling: self.world.reached(.takeoverWhileSettling)
            case .retreating: self.world.reached(.takeoverWhileRetreating)
            case .cleaning, nil: self.world.reached(.takeoverWhileCleaning)
            }
            let now = Int64(self.world.now / World.millisecond)
            var (machine, actions) = RingTransitionStateMachine.resuming(newest, nowMilliseconds: now)
            if let gone, machine.canGoOn(without: gone) {
                self.world.reached(.wentOnWithout)
                actions = machine.handle(.absent(gone), nowMilliseconds: now)
            }
            let driver = Driver(self, changeID: transition.id, holder: holder, mandate: mandate, machine: machine)
            self.driver = driver
            driver.run(actions)
        }
    }

    /// After each change, deletes what this node does not own.
    private func sweep() {
        guard let document, document.transition == nil, let last = document.lastChange, host.memory.record != nil,
            promiseHolder() == nil
        else { return }
        job(.change(.clean), document, changeID: "sweep after \(last.id)") { _ in }
    }
}
