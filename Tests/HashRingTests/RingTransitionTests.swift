// SPDX-License-Identifier: Apache-2.0

import HashRing
import Testing

/// One node joins another: the driver's machine, event by event.
struct RingTransitionTests {
    private typealias Machine = RingTransitionStateMachine

    private struct Fixture {
        let loser: NodeID
        let gainer: NodeID
        let bystander: NodeID?
        var machine: RingTransitionStateMachine
        var actions: [RingTransitionStateMachine.Action]

        /// - Parameter isWatched: whether a third node is there that neither gains nor loses.
        init(isWatched: Bool = false) throws {
            loser = try #require(NodeID("10.0.0.1:1"))
            gainer = try #require(NodeID("10.0.0.2:1"))
            bystander = isWatched ? NodeID("10.0.0.3:1") : nil
            let positions = try [1000, 6000, 3000].map { try #require(Position($0)) }
            var seats = [Ring.Seat(position: positions[0], node: loser)]
            if let bystander { seats.append(.init(position: positions[2], node: bystander)) }
            let ring = try #require(Ring(seats: seats))
            (machine, actions) = try Machine.beginning(
                .add(node: gainer, positions: [positions[1]]), id: "c",
                document: RingDocument(epoch: Epoch(1), ring: ring),
                generations: [loser: Generation(1), gainer: Generation(10)], nowMilliseconds: 0)
        }

        var epoch: Epoch { machine.document.epoch }
        var step: RingTransition.Step? { machine.document.transition?.step }

        mutating func hear(_ event: Machine.Event, at now: Int64 = 0) {
            actions = machine.handle(event, nowMilliseconds: now)
        }

        /// A node fails again and again, for so long; until the machine does more about it than to try again.
        mutating func fail(_ node: NodeID, every pause: Int64, until end: Int64, _ generation: Generation? = nil) {
            let before = epoch
            for now in stride(from: 0, through: end, by: Int(pause)) where epoch == before {
                hear(.failed(node, epoch, reason: "away", generation), at: Int64(now))
            }
        }

        /// Both nodes stand on the newest document; the gainer with this memory.
        mutating func adopt(_ generation: UInt64 = 10) {
            hear(.adopted(loser, epoch, Generation(1)))
            hear(.adopted(gainer, epoch, Generation(generation)))
        }

        mutating func finish(_ job: Machine.Job, gainer generation: UInt64 = 10, loser ours: UInt64 = 1) {
            let report = Machine.JobReport(
                generation: Generation(ours), gainers: [.init(node: gainer, generation: Generation(generation))])
            hear(.jobDone(loser, job, epoch, report))
        }

        /// The gainer is clean, and step copying, epoch 2, is being announced.
        mutating func prepare() {
            hear(.jobDone(gainer, .clean, Epoch(1), .init(generation: Generation(10), gainers: [])))
        }

        /// Everything goes well, and step settling, epoch 4, is being announced.
        mutating func climbToSettling() {
            prepare()
            adopt()
            finish(.copy)
            adopt()
            finish(.verify)
        }
    }

    /// With one copy, and the only node that was to get it gone for good, the loser keeps it.
    @Test(arguments: [RingTransition.Step.copying, .crossing, .settling])
    func whatNobodyIsLeftToHoldStaysWhereItIs(_ step: RingTransition.Step) throws {
        var fixture = try Fixture()
        let ring = fixture.machine.document.ring
        fixture.prepare()
        if step != .copying {
            fixture.adopt()
            fixture.finish(.copy)
        }
        if step == .settling {
            fixture.adopt()
            fixture.finish(.verify)
        }
        #expect(fixture.step == step)
        fixture.hear(.absent(fixture.gainer))
        #expect(fixture.machine.document.transition?.hasSettled == false)
        for _ in 0..<6 {
            fixture.hear(.adopted(fixture.loser, fixture.epoch, Generation(1)))
            #expect(
                !fixture.actions.contains { if case .run(.clean, fixture.loser, _, _) = $0 { true } else { false } })
        }
        let document = fixture.machine.document
        #expect(document.transition == nil && document.ring == ring && document.lastChange?.outcome == .aborted)
        #expect(document.lastChange?.reason.contains("slots would have been left to 10.0.0.2:1") == true)
    }

    @Test func nothingBeginsThatWouldLeaveSlotsToNobody() throws {
        let nodes = (1...3).compactMap { NodeID("10.0.0.\($0):1") }
        let seats = try nodes.enumerated().map {
            Ring.Seat(position: try #require(Position(3000 * $0.offset)), node: $0.element)
        }
        let document = RingDocument(epoch: Epoch(1), ring: try #require(Ring(seats: seats)))
        #expect(throws: RingChangeError.nobodyLeft(slots: 3000)) {
            try Machine.beginning(
                .remove(node: nodes[1]), id: "c", document: document, generations: [:], absent: [nodes[2]],
                nowMilliseconds: 0)
        }
    }

    @Test func fromFirstToLast() throws {
        var fixture = try Fixture()
        #expect(
            fixture.actions == [.run(.clean, on: fixture.gainer, under: fixture.machine.document, afterMilliseconds: 0)]
        )
        fixture.prepare()
        #expect(fixture.actions == [.announce(fixture.machine.document, to: fixture.loser, afterMilliseconds: 0)])
        #expect(fixture.step == .copying && fixture.epoch == Epoch(2))
        #expect(fixture.machine.document.transition?.fences == [.init(node: fixture.loser, generation: Generation(1))])
        fixture.adopt()
        #expect(
            fixture.actions == [.run(.copy, on: fixture.loser, under: fixture.machine.document, afterMilliseconds: 0)])
        fixture.finish(.copy)
        #expect(fixture.step == .crossing && fixture.epoch == Epoch(3))
        fixture.adopt()
        #expect(
            fixture.actions == [.run(.verify, on: fixture.loser, under: fixture.machine.document, afterMilliseconds: 0)]
        )
        fixture.finish(.verify)
        #expect(fixture.step == .settling && fixture.epoch == Epoch(4))
        fixture.adopt()
        #expect(fixture.actions == [.announce(fixture.machine.document, to: fixture.gainer, afterMilliseconds: 0)])
        fixture.hear(.adopted(fixture.gainer, fixture.epoch, Generation(10)))
        #expect(fixture.step == .cleaning && fixture.epoch == Epoch(5))
        #expect(fixture.machine.document.transition?.fence(of: fixture.gainer) == Generation(10))
        fixture.adopt()
        fixture.finish(.clean)
        #expect(fixture.step == nil && fixture.machine.document.lastChange?.outcome == .completed)
        fixture.adopt()
        #expect(fixture.actions == [.end(.finished(fixture.machine.document))])
    }

    /// A write that a gainer's lost memory had acknowledged reached its loser after that one was verified for the new
    /// memory, and was deleted there in the end: the small model's walk found it.
    @Test func aGainerEmptiedWhileCrossingMakesAllCrossAgain() throws {
        var fixture = try Fixture()
        fixture.prepare()
        fixture.adopt()
        fixture.finish(.copy)
        fixture.adopt()
        fixture.finish(.verify, gainer: 11)
        #expect(fixture.step == .crossing && fixture.epoch == Epoch(4))
        fixture.adopt(11)
        #expect(
            fixture.actions == [.run(.verify, on: fixture.loser, under: fixture.machine.document, afterMilliseconds: 0)]
        )
        fixture.finish(.verify, gainer: 11)
        #expect(fixture.step == .settling && fixture.epoch == Epoch(5))
        #expect(fixture.machine.document.transition?.fence(of: fixture.gainer) == Generation(11))
    }

    @Test(arguments: [false, true])
    func aGainerEmptiedWhileSettlingMakesAllCrossAgain(isSecondLook: Bool) throws {
        var fixture = try Fixture()
        fixture.climbToSettling()
        if isSecondLook { fixture.adopt() } else { fixture.hear(.adopted(fixture.loser, fixture.epoch, Generation(1))) }
        fixture.hear(.adopted(fixture.gainer, fixture.epoch, Generation(11)))
        #expect(fixture.step == .crossing && fixture.epoch == Epoch(5))
        // What was under way when the memory died is refused once more before anything settles on the new one.
        fixture.adopt(11)
        fixture.finish(.verify, gainer: 11)
        #expect(fixture.step == .crossing && fixture.epoch == Epoch(6))
        fixture.adopt(11)
        fixture.finish(.verify, gainer: 11)
        #expect(fixture.step == .settling && fixture.epoch == Epoch(7))
    }

    /// After its last word on settling, and before it stands on cleaning: the losers have everything still.
    @Test(arguments: [false, true])
    func aGainerEmptiedBeforeItStandsOnCleaningMakesAllCrossAgain(isResumed: Bool) throws {
        var fixture = try Fixture()
        fixture.climbToSettling()
        fixture.adopt()
        fixture.hear(.adopted(fixture.gainer, fixture.epoch, Generation(10)))
        #expect(fixture.step == .cleaning && fixture.epoch == Epoch(5))
        if isResumed { (fixture.machine, _) = Machine.resuming(fixture.machine.document, nowMilliseconds: 0) }
        fixture.hear(.adopted(fixture.loser, fixture.epoch, Generation(1)))
        fixture.hear(.lostWhatWasVerified(fixture.gainer, Epoch(4)))
        #expect(fixture.actions == [], "an old answer")
        fixture.hear(.lostWhatWasVerified(fixture.gainer, fixture.epoch))
        // (Another driver, cut off, may have made the last document meanwhile: epoch 6.)
        let crossing = Epoch(5).beyondTheUnheard.next
        #expect(fixture.step == .crossing && fixture.epoch == crossing)
        #expect(fixture.actions == [.announce(fixture.machine.document, to: fixture.loser, afterMilliseconds: 0)])
        #expect(fixture.machine.needsPromise(of: fixture.loser))
        #expect(!fixture.machine.canAbort, "another gainer may have acknowledged alone by then")
        fixture.adopt(11)
        fixture.finish(.verify, gainer: 11)
        #expect(fixture.step == .crossing && fixture.epoch == crossing.next, "what was under way begins again")
        fixture.adopt(11)
        fixture.finish(.verify, gainer: 11, loser: 2)
        #expect(fixture.step == .settling && fixture.epoch == crossing.next.next)
        #expect(fixture.machine.document.transition?.losses.count == 1, "a loser's memory that is lost then is noted")
    }

    /// Once losers may have deleted something, what a gainer loses is lost, as any owner's.
    @Test func nothingGoesBackOnceLosersDelete() throws {
        var fixture = try Fixture()
        fixture.climbToSettling()
        fixture.adopt()
        fixture.hear(.adopted(fixture.gainer, fixture.epoch, Generation(10)))
        fixture.adopt()
        #expect(
            fixture.actions == [.run(.clean, on: fixture.loser, under: fixture.machine.document, afterMilliseconds: 0)])
        fixture.hear(.lostWhatWasVerified(fixture.gainer, fixture.epoch))
        #expect(fixture.actions == [] && fixture.step == .cleaning && fixture.epoch == Epoch(5))
    }

    /// It may have acknowledged alone what its memory held. (Nor is that noted: two drivers may make the last document,
    /// of which one has heard of it.)
    @Test func aGainerEmptiedOnceItStoodOnCleaningDoesNotSendTheChangeBack() throws {
        var fixture = try Fixture()
        fixture.climbToSettling()
        fixture.adopt()
        fixture.hear(.adopted(fixture.gainer, fixture.epoch, Generation(10)))
        var (other, _) = Machine.resuming(fixture.machine.document, nowMilliseconds: 0)
        for (node, generation) in [(fixture.loser, 1), (fixture.gainer, 10)] as [(NodeID, UInt64)] {
            _ = other.handle(.adopted(node, fixture.epoch, Generation(generation)), nowMilliseconds: 0)
        }
        fixture.adopt(11)
        #expect(fixture.step == .cleaning && fixture.epoch == Epoch(5))
        fixture.finish(.clean)
        let report = Machine.JobReport(generation: Generation(1), gainers: [])
        _ = other.handle(.jobDone(fixture.loser, .clean, Epoch(5), report), nowMilliseconds: 0)
        #expect(fixture.machine.document.lastChange?.outcome == .completed)
        #expect(other.document == fixture.machine.document)
    }

    /// Longer than a bystander is, for what the losers delete next may be all that is left of what it has.
    @Test func aGainerIsWaitedForBeforeLosersDelete() throws {
        var fixture = try Fixture(isWatched: true)
        let bystander = try #require(fixture.bystander)
        fixture.prepare()
        for job in [Machine.Job.copy, .verify, nil] {
            fixture.adopt()
            fixture.hear(.adopted(bystander, fixture.epoch, Generation(5)))
            if let job { fixture.finish(job) }
        }
        fixture.hear(.adopted(fixture.gainer, fixture.epoch, Generation(10)))
        #expect(fixture.step == .cleaning)
        fixture.hear(.adopted(fixture.loser, fixture.epoch, Generation(1)))
        fixture.hear(.failed(bystander, fixture.epoch, reason: "away"), at: Machine.courtesyMilliseconds)
        #expect(fixture.actions == [], "nobody waits for it any more")
        let retry = Machine.Action.announce(
            fixture.machine.document, to: fixture.gainer, afterMilliseconds: Machine.retryMilliseconds)
        fixture.hear(.failed(fixture.gainer, fixture.epoch, reason: "away"), at: Machine.patienceMilliseconds - 1)
        #expect(fixture.actions == [retry])
        fixture.hear(.failed(fixture.gainer, fixture.epoch, reason: "away"), at: Machine.patienceMilliseconds)
        #expect(
            fixture.actions == [.run(.clean, on: fixture.loser, under: fixture.machine.document, afterMilliseconds: 0)])
    }

    @Test func aLoserEmptiedIsNotedAlsoAfterSettlingFellBack() throws {
        var fixture = try Fixture()
        fixture.climbToSettling()
        fixture.hear(.adopted(fixture.loser, fixture.epoch, Generation(1)))
        fixture.hear(.adopted(fixture.gainer, fixture.epoch, Generation(11)))
        fixture.adopt(11)
        fixture.finish(.verify, gainer: 11, loser: 2)
        #expect(fixture.machine.document.transition?.losses.count == 1)
    }

    /// The new side may have shown what the old one never got.
    @Test func nobodyAbortsWhatHasSettledOnce() throws {
        var fixture = try Fixture()
        fixture.climbToSettling()
        fixture.hear(.adopted(fixture.loser, fixture.epoch, Generation(1)))
        fixture.fail(fixture.gainer, every: 250, until: 60_000)
        #expect(fixture.step == .settling && fixture.epoch == Epoch(4), "it is waited for")
        fixture.hear(.abort(reason: "enough"))
        #expect(fixture.actions == [] && !fixture.machine.canAbort)
    }

    /// What a single gainer had shown died with its memory; of two, the other one still holds what it has shown.
    @Test(arguments: [1, 2])
    func crossingAgainCanBeAbortedIfNothingShownIsLeft(gainers: Int) throws {
        let nodes = try (1...3).map { try #require(NodeID("10.0.0.\($0):1")) }
        let seats = try [(1000, 0), (4000, 1), (5000, 0), (8000, gainers == 1 ? 1 : 2)].map {
            Ring.Seat(position: try #require(Position($0.0)), node: nodes[$0.1])
        }
        var (machine, _) = try Machine.beginning(
            .remove(node: nodes[0]), id: "c",
            document: RingDocument(epoch: Epoch(1), ring: try #require(Ring(seats: seats))),
            generations: [nodes[0]: Generation(1)], nowMilliseconds: 0)
        let gaining = Array(nodes[1...gainers])
        let memories = gaining.map { RingTransition.Fence(node: $0, generation: Generation(10)) }
        func adopt() {
            let epoch = machine.document.epoch
            for node in nodes {
                _ = machine.handle(.adopted(node, epoch, Generation(node == nodes[0] ? 1 : 10)), nowMilliseconds: 0)
            }
        }
        func finish(_ job: Machine.Job) {
            let report = Machine.JobReport(generation: Generation(1), gainers: memories)
            _ = machine.handle(.jobDone(nodes[0], job, machine.document.epoch, report), nowMilliseconds: 0)
        }
        for node in gaining {
            let report = Machine.JobReport(generation: Generation(10), gainers: [])
            _ = machine.handle(.jobDone(node, .clean, Epoch(1), report), nowMilliseconds: 0)
        }
        adopt()
        finish(.copy)
        adopt()
        finish(.verify)
        #expect(machine.document.transition?.step == .settling && !machine.canAbort)
        let epoch = machine.document.epoch
        _ = machine.handle(.adopted(nodes[0], epoch, Generation(1)), nowMilliseconds: 0)
        _ = machine.handle(.adopted(gaining[0], epoch, Generation(11)), nowMilliseconds: 0)
        #expect(machine.document.transition?.step == .crossing)
        #expect(machine.canAbort == (gainers == 1))
    }

    @Test func aGainerThatIsAwayBeforeSettlingEndsTheChange() throws {
        var fixture = try Fixture()
        fixture.prepare()
        fixture.adopt()
        fixture.finish(.copy)
        fixture.hear(.adopted(fixture.loser, fixture.epoch, Generation(1)))
        fixture.fail(fixture.gainer, every: 250, until: 60_000)
        #expect(fixture.step == .retreating)
    }

    @Test func whoHoldsNothingThatMovesIsNotWaitedForLong() throws {
        var fixture = try Fixture(isWatched: true)
        let bystander = try #require(fixture.bystander)
        fixture.prepare()
        fixture.adopt()
        #expect(fixture.actions == [], "it is given a moment")
        fixture.fail(bystander, every: 250, until: 1500)
        #expect(fixture.actions == [.announce(fixture.machine.document, to: bystander, afterMilliseconds: 250)])
        fixture.hear(.failed(bystander, fixture.epoch, reason: "away"), at: 2500)
        #expect(
            fixture.actions == [.run(.copy, on: fixture.loser, under: fixture.machine.document, afterMilliseconds: 0)])
    }

    /// What the gainer holds is the last copy then.
    @Test(arguments: [false, true])
    func noDriverAbortsOnceALoserIsKnownToBeEmptied(isToldByFailure: Bool) throws {
        var fixture = try Fixture()
        fixture.prepare()
        fixture.hear(.adopted(fixture.loser, fixture.epoch, Generation(isToldByFailure ? 1 : 2)))
        fixture.hear(.adopted(fixture.gainer, fixture.epoch, Generation(10)))
        fixture.fail(fixture.loser, every: 250, until: 60_000, isToldByFailure ? Generation(2) : nil)
        #expect(fixture.step == .copying && fixture.machine.canAbort, "only an operator may")
        fixture.finish(.copy, loser: 2)
        #expect(fixture.machine.document.transition?.losses.count == 1)
    }

    @Test(arguments: [250, 12_000])
    func aCleanUpThatFailsIsLeftToTheNode(everyMilliseconds: Int64) throws {
        var fixture = try Fixture()
        fixture.climbToSettling()
        fixture.adopt()
        fixture.adopt()
        #expect(fixture.step == .cleaning)
        fixture.adopt()
        fixture.fail(fixture.loser, every: everyMilliseconds, until: 200_000)
        #expect(fixture.machine.document.lastChange?.outcome == .completed)
    }

    @Test func abortsWhileCopying() throws {
        var fixture = try Fixture()
        fixture.prepare()
        fixture.adopt()
        #expect(fixture.machine.canAbort)
        fixture.hear(.abort(reason: "enough"))
        #expect(fixture.step == .cleaning)
        #expect(!fixture.machine.canAbort)
        fixture.adopt()
        #expect(
            fixture.actions == [.run(.clean, on: fixture.gainer, under: fixture.machine.document, afterMilliseconds: 0)]
        )
    }

    @Test func abortsWhileCrossing() throws {
        var fixture = try Fixture()
        fixture.prepare()
        fixture.adopt()
        fixture.finish(.copy)
        fixture.adopt()
        fixture.hear(.abort(reason: "enough"))
        #expect(fixture.step == .retreating)
        fixture.hear(.abort(reason: "again"))
        #expect(fixture.actions == [])
        fixture.adopt()
        #expect(fixture.step == .cleaning)
        fixture.hear(.adopted(fixture.loser, fixture.epoch, Generation(1)))
        fixture.hear(.adopted(fixture.gainer, fixture.epoch, Generation(10)))
        fixture.hear(.jobDone(fixture.gainer, .clean, fixture.epoch, .init(generation: Generation(10), gainers: [])))
        #expect(fixture.machine.document.lastChange?.outcome == .aborted)
        #expect(fixture.machine.document.ring.nodes == [fixture.loser])
    }

    /// What comes late, twice or from another epoch changes nothing.
    @Test func oldAnswersAreIgnored() throws {
        var fixture = try Fixture()
        fixture.prepare()
        fixture.adopt()
        let before = fixture.machine
        fixture.hear(.adopted(fixture.loser, Epoch(1), Generation(1)))
        fixture.hear(.adopted(fixture.gainer, Epoch(2), Generation(10)))
        fixture.hear(.failed(fixture.loser, Epoch(1), reason: "late"))
        fixture.hear(.overtaken(fixture.loser, Epoch(1)))
        #expect(fixture.actions == [] && fixture.machine == before)
    }

    @Test(arguments: RingTransition.Step.allCases)
    func anotherDriverAnnouncesWhatIsInForce(step: RingTransition.Step) throws {
        var fixture = try Fixture()
        fixture.prepare()
        var document = fixture.machine.document
        document.transition?.step = step
        let (machine, actions) = Machine.resuming(document, nowMilliseconds: 0)
        #expect(machine.document == document)
        #expect(actions == [.announce(document, to: fixture.loser, afterMilliseconds: 0)])
    }

    @Test func overtakenStandsDown() throws {
        var fixture = try Fixture()
        fixture.prepare()
        fixture.hear(.overtaken(fixture.loser, fixture.epoch))
        #expect(fixture.actions == [.end(.overtaken)])
        fixture.adopt()
        #expect(fixture.actions == [])
    }

    // MARK: Who is gone for good

    /// Three nodes hold everything, one of them is gone: the others are each other's source, and their word counts.
    @Test func aDeadNodeIsRemovedByTheOthersWord() throws {
        let nodes = try (1...3).map { try #require(NodeID("10.0.0.\($0):1")) }
        let seats = try nodes.enumerated().map {
            Ring.Seat(position: try #require(Position($0.offset * 3000 + 999)), node: $0.element)
        }
        let ring = try #require(Ring(seats: seats))
        let start = RingDocument(epoch: Epoch(7), ring: ring, replicas: 3)
        var (machine, actions) = try Machine.beginning(
            .remove(node: nodes[2]), id: "c", document: start,
            generations: [nodes[0]: Generation(1), nodes[1]: Generation(2)], absent: [nodes[2]], nowMilliseconds: 0)
        #expect(actions == nodes[..<2].map { .run(.clean, on: $0, under: start, afterMilliseconds: 0) })
        for (index, node) in nodes[..<2].enumerated() {
            let report = Machine.JobReport(generation: Generation(UInt64(index + 1)), gainers: [])
            actions = machine.handle(.jobDone(node, .clean, Epoch(7), report), nowMilliseconds: 0)
        }
        #expect(machine.losers == Set(nodes[..<2]))
        // Whatever the dead one may have accepted alone is older.
        #expect(machine.document.epoch > Epoch(8))
        #expect(machine.document.transition?.absent == [nodes[2]])
        func adopt() {
            for (index, node) in nodes[..<2].enumerated() {
                actions = machine.handle(
                    .adopted(node, machine.document.epoch, Generation(UInt64(index + 1))), nowMilliseconds: 0)
            }
        }
        func finish(_ job: Machine.Job) {
            for (index, node) in nodes[..<2].enumerated() {
                let other = RingTransition.Fence(node: nodes[1 - index], generation: Generation(UInt64(2 - index)))
                let report = Machine.JobReport(generation: Generation(UInt64(index + 1)), gainers: [other])
                actions = machine.handle(.jobDone(node, job, machine.document.epoch, report), nowMilliseconds: 0)
            }
        }
        adopt()
        #expect(actions.contains { if case .run(.copy, _, _, _) = $0 { true } else { false } })
        finish(.copy)
        adopt()
        finish(.verify)
        #expect(machine.document.transition?.step == .settling)
        adopt()
        adopt()
        #expect(machine.document.transition?.step == .cleaning, "nobody waited for the dead one")
        adopt()
        finish(.clean)
        #expect(machine.document.transition == nil && machine.document.ring == ring.removing(nodes[2]))
        #expect(machine.document.standbys == [nodes[2]], "should it come back, it is told")
    }

    /// The gainer dies where there is no way down: an operator has the change go on without it.
    @Test func aChangeGoesOnWithoutAGainerThatIsGone() throws {
        let nodes = try (1...3).map { try #require(NodeID("10.0.0.\($0):1")) }
        let seats = try nodes[..<2].enumerated().map {
            Ring.Seat(position: try #require(Position($0.offset * 3000 + 999)), node: $0.element)
        }
        let document = RingDocument(epoch: Epoch(1), ring: try #require(Ring(seats: seats)), replicas: 3)
        let change = RingChange.add(node: nodes[2], positions: [try #require(Position(8000))])
        let target = try change.applied(to: document.ring)
        let settling = RingTransition(
            id: "c", change: change, from: document.ring, to: target, step: .settling, hasSettled: true)
        var (machine, _) = Machine.resuming(
            RingDocument(epoch: Epoch(4), ring: target, replicas: 3, transition: settling), nowMilliseconds: 0)
        #expect(!machine.canAbort && machine.canGoOn(without: nodes[2]))
        let actions = machine.handle(.absent(nodes[2]), nowMilliseconds: 0)
        #expect(machine.document.transition?.step == .crossing, "some may have read from the new side alone")
        #expect(machine.document.transition?.absent == [nodes[2]])
        #expect(!machine.canAbort && !machine.canGoOn(without: nodes[2]))
        #expect(machine.losers.isDisjoint(with: [nodes[2]]))
        #expect(
            actions.allSatisfy {
                if case .announce(_, let node, _) = $0 { machine.losers.contains(node) } else { false }
            })
        #expect(machine.handle(.absent(nodes[2]), nowMilliseconds: 0).isEmpty, "once is enough")
    }
}
