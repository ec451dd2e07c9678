// SPDX-License-Identifier: Apache-2.0

import HashRing
import Testing

/// One node joins another: the driver's machine, event by event.
struct RingTransitionTests {
    private typealias Machine = RingTransitionStateMachine

    private struct Fixture {
        let loser: NodeID
        let gainer: NodeID
        var machine: RingTransitionStateMachine
        var actions: [RingTransitionStateMachine.Action]

        init() throws {
            loser = try #require(NodeID("10.0.0.1:1"))
            gainer = try #require(NodeID("10.0.0.2:1"))
            let positions = try [1000, 6000].map { try #require(Position($0)) }
            let ring = try #require(Ring(seats: [.init(position: positions[0], node: loser)]))
            (machine, actions) = try Machine.beginning(
                .add(node: gainer, position: positions[1]), id: "c",
                document: RingDocument(epoch: Epoch(1), ring: ring),
                generations: [loser: Generation(1), gainer: Generation(10)], nowMilliseconds: 0)
        }

        var epoch: Epoch { machine.document.epoch }
        var step: RingTransition.Step? { machine.document.transition?.step }

        mutating func hear(_ event: Machine.Event) { actions = machine.handle(event, nowMilliseconds: 0) }

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
        #expect(fixture.machine.document.transition?.fences == [])
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
        fixture.prepare()
        fixture.adopt()
        fixture.finish(.copy)
        fixture.adopt()
        fixture.finish(.verify)
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

    @Test func aLoserEmptiedIsNotedAlsoAfterSettlingFellBack() throws {
        var fixture = try Fixture()
        fixture.prepare()
        fixture.adopt()
        fixture.finish(.copy)
        fixture.adopt()
        fixture.finish(.verify)
        fixture.hear(.adopted(fixture.loser, fixture.epoch, Generation(1)))
        fixture.hear(.adopted(fixture.gainer, fixture.epoch, Generation(11)))
        fixture.adopt(11)
        fixture.finish(.verify, gainer: 11, loser: 2)
        #expect(fixture.machine.document.transition?.losses.count == 1)
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
}
