// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue

/// What starts changes, aborts them and takes them over: as `RingOperator` and the chores of `Housekeeping` do it.
extension Worker {
    func change(_ change: RingChange, tries: Int = 20) {
        guard tries > 0 else { return }
        refresh()
        after(5 * World.millisecond) {
            guard let document = self.document, document.transition == nil,
                (try? change.applied(to: document.ring)) != nil
            else { return }
            let id = self.world.nextName()
            let members = Set(document.ring.nodes + [change.node]).sorted()
            let holder = "\(self.node)/\(id)"
            Driver.acquire(self, holder, required: members, others: []) { mandate, refusal in
                guard let mandate else {
                    guard case .heldBy = refusal else { return }
                    self.world.reached(.changesContended)
                    return self.after(self.world.random.pick(50...150) * World.millisecond) {
                        self.change(change, tries: tries - 1)
                    }
                }
                func giveBack() { for node in mandate.required { Driver.release(self, node, holder) } }
                guard mandate.newest == document, self.driver == nil else {
                    giveBack()
                    if let newest = mandate.newest { self.learn(newest) }
                    return self.after(100 * World.millisecond) { self.change(change, tries: tries - 1) }
                }
                guard
                    let (machine, actions) = try? RingTransitionStateMachine.beginning(
                        change, id: id, document: document, generations: mandate.generations,
                        nowMilliseconds: Int64(self.world.now / World.millisecond))
                else { return giveBack() }
                self.world.note("change \(change) begins at \(holder)")
                let driver = Driver(self, changeID: id, holder: holder, mandate: mandate, machine: machine)
                self.driver = driver
                driver.run(actions)
            }
        }
    }

    /// Leaves the wish with every member.
    func abortChange() {
        guard let document, let transition = document.transition, transition.abortReason == nil else { return }
        let id = transition.id
        for member in document.members {
            call(member, timeout: World.second, mayRepeat: true) { other, reply in
                other.host.memory.wish = (id, "aborted by an operator")
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
        let losers = transition.step == .cleaning ? [] : MovePlan(transition, replicas: document.replicas).losers
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
            let (machine, actions) = RingTransitionStateMachine.resuming(
                newest, nowMilliseconds: Int64(self.world.now / World.millisecond))
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
        job(.clean, document, changeID: "sweep after \(last.id)") { _ in }
    }
}
