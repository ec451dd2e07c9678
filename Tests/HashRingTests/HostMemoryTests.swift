// SPDX-License-Identifier: Apache-2.0

import HashRing
import Testing

/// When a memory is to be refilled, and when it must not answer.
struct HostMemoryTests {
    private let nodes = (1...4).compactMap { NodeID("10.0.0.\($0):1") }

    private func document(
        _ count: Int, replicas: Int, epoch: UInt64 = 3, _ transition: RingTransition? = nil
    ) throws -> RingDocument {
        RingDocument(epoch: Epoch(epoch), ring: try ring(count), replicas: replicas, transition: transition)
    }

    private func ring(_ count: Int) throws -> Ring {
        let seats = try nodes.prefix(count).enumerated().map {
            Ring.Seat(position: try #require(Position($0.offset * 2000)), node: $0.element)
        }
        return try #require(Ring(seats: seats))
    }

    private func memory(_ index: Int, generation: UInt64 = 1, hasSnapshot: Bool = false) -> HostMemory {
        HostMemory(node: nodes[index], generation: Generation(generation), hasSnapshot: hasSnapshot)
    }

    /// Node 3 joins nodes 0 to 2.
    private func joining(
        _ step: RingTransition.Step, _ fences: [Int: UInt64], id: String = "c"
    ) throws -> RingTransition {
        RingTransition(
            id: id, change: .add(node: nodes[3], positions: [try #require(Position(6000))]), from: try ring(3),
            to: try ring(4), step: step,
            fences: fences.map { .init(node: nodes[$0.key], generation: Generation($0.value)) })
    }

    @Test func anEmptyMemoryIsWantingWhereOthersOrTheDiskHaveItsPairs() throws {
        #expect(!memory(0).isWantingEmpty(under: nil))
        #expect(memory(0).isWantingEmpty(under: try document(3, replicas: 3)))
        #expect(!memory(0).isWantingEmpty(under: try document(3, replicas: 1)), "nobody has them")
        #expect(memory(0, hasSnapshot: true).isWantingEmpty(under: try document(3, replicas: 1)))
        #expect(!memory(3, hasSnapshot: true).isWantingEmpty(under: try document(3, replicas: 3)), "it holds nothing")
    }

    /// Its snapshot is of an earlier time on the ring, and what was deleted since may be forgotten.
    @Test func whoJoinsIsNotWantingForItsSnapshot() throws {
        let memory = memory(3, hasSnapshot: true)
        for step in [RingTransition.Step.copying, .crossing, .settling] {
            var document = try document(3, replicas: 3, try joining(step, [:]))
            #expect(!memory.isWantingEmpty(under: document))
            document.replicas = 1
            #expect(!memory.isWantingEmpty(under: document))
        }
        var document = try document(4, replicas: 3, try joining(.cleaning, [:]))
        #expect(memory.isWantingEmpty(under: document))
        document.transition = nil
        #expect(memory.isWantingEmpty(under: document))
    }

    @Test func aNewMachineUnderAnOldAddressIsWanting() throws {
        let first = try document(3, replicas: 3)
        #expect(memory(0).isWanting(under: first, after: nil))
        #expect(!memory(3).isWanting(under: first, after: nil))
        let next = try document(3, replicas: 3, epoch: 4)
        #expect(!memory(0).isWanting(under: next, after: first), "it has heard of the ring before")
    }

    /// Until the document that lets the others delete, going back and verifying again is the change's own affair.
    @Test(
        arguments: [
            (.settling, .cleaning, 10, false), (.settling, .cleaning, 11, true), (.settling, nil, 11, true),
            (.settling, .crossing, 11, false), (.settling, .settling, 11, false), (.crossing, .settling, 11, false),
        ] as [(RingTransition.Step, RingTransition.Step?, UInt64, Bool)])
    func aGainerThatForgotAfterItsLastWordIsWanting(
        _ before: RingTransition.Step, _ after: RingTransition.Step?, _ generation: UInt64, _ isWanting: Bool
    ) throws {
        let previous = try document(4, replicas: 3, try joining(before, [0: 1, 3: 10]))
        let next = try document(4, replicas: 3, epoch: 4, try after.map { try joining($0, [:]) })
        #expect(memory(3, generation: generation).isWanting(under: next, after: previous) == isWanting)
        let further = try document(4, replicas: 3, epoch: 9, try joining(.copying, [:], id: "another"))
        #expect(
            memory(3, generation: generation).isWanting(under: further, after: previous)
                == (before == .settling && generation == 11))
    }

    /// What a loser had then is the gainer's, by the gainer's word.
    @Test func aLoserThatForgotIsNotWantingForWhatItGave() throws {
        let previous = try document(4, replicas: 1, try joining(.settling, [2: 1, 3: 10]))
        let next = try document(4, replicas: 1, epoch: 4, try joining(.cleaning, [:]))
        #expect(!memory(2, generation: 2).isWanting(under: next, after: previous))
        #expect(memory(3, generation: 11).isWanting(under: next, after: previous))
    }

    /// Whatever it knew before: its disk may be gone, or older, or it may have been told of the change by others.
    @Test func aGainerIsWantingOnCleaningUnlessItsMemoryIsTheVerifiedOne() throws {
        let cleaning = try document(4, replicas: 1, epoch: 4, try joining(.cleaning, [2: 1, 3: 10]))
        let before = try [nil, document(3, replicas: 1), document(3, replicas: 1, try joining(.crossing, [3: 9]))]
        for previous in before {
            #expect(memory(3, generation: 11).isWanting(under: cleaning, after: previous))
            #expect(!memory(3, generation: 10).isWanting(under: cleaning, after: previous))
            #expect(!memory(2, generation: 2).isWanting(under: cleaning, after: previous), "it only loses")
        }
        var record = HostRingRecord(document: cleaning)
        record.examine(memory(3, generation: 11), after: cleaning)
        #expect(record.wantingSince == nil, "it stood there: what it acknowledged alone is gone")
        var aborted = try joining(.cleaning, [2: 1, 3: 10])
        aborted.abortReason = "enough"
        let back = try document(3, replicas: 1, epoch: 4, aborted)
        #expect(!memory(3, generation: 11).isWanting(under: back, after: before[1]))
    }

    /// Where nobody but the losers could refill it, and not where other replicas do.
    @Test(arguments: [1, 3])
    func theChangeGoesBackForWhatOnlyLosersHave(replicas: Int) throws {
        let settling = try document(4, replicas: replicas, try joining(.settling, [2: 1, 3: 10]))
        let cleaning = try document(4, replicas: replicas, epoch: 4, try joining(.cleaning, [:]))
        for (generation, isLost) in [(10, false), (11, true)] as [(UInt64, Bool)] {
            let memory = memory(3, generation: generation)
            #expect(memory.isToWaitEmpty(under: cleaning) == (replicas == 1))
            #expect(!memory.isToWaitEmpty(under: settling))
            var record = HostRingRecord(document: settling)
            #expect(!record.isWithoutWhatWasVerified(memory))
            _ = record.learn(cleaning)
            record.examine(memory, after: settling)
            #expect(record.isWithoutWhatWasVerified(memory) == (isLost && replicas == 1))
            // Another memory, that stood on cleaning before it was lost: what it had acknowledged is gone.
            #expect(!HostRingRecord(document: cleaning).isWithoutWhatWasVerified(memory))
            let after = try document(4, replicas: replicas, epoch: 5, try joining(.crossing, [:]))
            _ = record.learn(after)
            record.examine(memory, after: cleaning)
            #expect(!record.isWithoutWhatWasVerified(memory), "the change is back where losers give")
        }
        var aborted = try joining(.cleaning, [:])
        aborted.abortReason = "enough"
        let back = try document(3, replicas: replicas, epoch: 4, aborted)
        #expect(!memory(3, generation: 11).isToWaitEmpty(under: back), "the losers keep what they have")
    }

    /// What the fences are for: the losing side answers alone while copying, the gaining side while settling.
    @Test(arguments: RingTransition.Step.allCases)
    func fences(_ step: RingTransition.Step) throws {
        for replicas in [1, 3] {
            let document = try document(4, replicas: replicas, try joining(step, [2: 1, 3: 10]))
            #expect(!memory(2, generation: 1).isFenced(under: document))
            #expect(!memory(3, generation: 10).isFenced(under: document))
            #expect(!memory(0, generation: 99).isFenced(under: document), "nothing rests on it")
            let isAlone = step == .copying || step == .retreating
            // With replicas, it is recovering until the others have refilled it.
            #expect(
                memory(2, generation: 2).isFenced(under: document) == (step == .settling || isAlone && replicas == 1))
            #expect(memory(3, generation: 11).isFenced(under: document) == (step == .settling || isAlone))
        }
    }

    /// Told once, with the document from which on it is so; not again while the same one stands.
    @Test func theRecordKeepsSinceWhenItIsWanting() throws {
        var record = HostRingRecord()
        let first = try document(3, replicas: 3)
        _ = record.learn(first)
        record.examine(memory(0), after: nil)
        #expect(record.wantingSince == first.epoch)
        let next = try document(3, replicas: 3, epoch: 4)
        _ = record.learn(next)
        record.examine(memory(0), after: first)
        #expect(record.wantingSince == first.epoch)
        var founder = HostRingRecord()
        _ = founder.learn(first)
        var twin = founder
        founder.examine(memory(0), after: nil, isFounding: true)
        #expect(founder.wantingSince == nil, "where no node had a ring nothing was lost")
        twin.examine(memory(0, hasSnapshot: true), after: nil, isFounding: true)
        #expect(twin.wantingSince == first.epoch, "but for what is on disk")
    }
}
