// SPDX-License-Identifier: Apache-2.0

import Supervision
import TestSupport
import Testing

/// Lets time pass for the machine, and keeps book of the processes it believes in: a slot must never be given away
/// while its process lives.
struct SupervisorWorld {
    var machine: SupervisorStateMachine
    var now: Int64 = 0
    /// Living processes by slot; whether each beats.
    private(set) var living: [Int: Bool] = [:]
    private(set) var leaving: Set<Int> = []
    private(set) var notes: [SystemdNotifier.State] = []
    private(set) var reports: [SupervisorStateMachine.Report] = []
    private(set) var announced: Set<Int> = []
    private(set) var isListening = true
    private(set) var isFinished = false

    init(workers: Int, drainMilliseconds: Int64 = 10_000) {
        machine = SupervisorStateMachine(workers: workers, drainMilliseconds: drainMilliseconds, now: 0)
        send(.tick)
    }

    @discardableResult
    mutating func send(_ event: SupervisorStateMachine.Event) -> [SupervisorStateMachine.Action] {
        let actions = machine.handle(event, now: now)
        for action in actions { perform(action) }
        return actions
    }

    private mutating func perform(_ action: SupervisorStateMachine.Action) {
        switch action {
        case .spawn(let slot):
            #expect(living[slot] == nil, "slot \(slot) is given away while its process lives")
            #expect(isListening, "a worker is started without a socket")
            living[slot] = true
        case .drain(let slot):
            #expect(living[slot] != nil)
            leaving.insert(slot)
        case .kill(let slot):
            #expect(living[slot] != nil)
            living[slot] = false
            leaving.insert(slot)
        case .announceLeave(let slot): announced.insert(slot)
        case .closeListener: isListening = false
        case .notify(let state): notes.append(state)
        case .report(let report): reports.append(report)
        case .finish: isFinished = true
        }
    }

    /// The process is gone.
    mutating func end(_ slot: Int) {
        living[slot] = nil
        leaving.remove(slot)
        send(.exited(slot))
    }

    mutating func stopBeating(_ slot: Int) { living[slot] = false }

    /// Time passes in ticks; who can, beats.
    mutating func pass(_ milliseconds: Int64) {
        let end = now + milliseconds
        while now < end {
            now = min(now + 50, end)
            for (slot, beats) in living.sorted(by: { $0.key < $1.key }) where beats { send(.beat(slot)) }
            send(.tick)
        }
    }

    var serving: [Int] { living.keys.filter { !leaving.contains($0) }.sorted() }

    mutating func allReady() { for slot in serving { send(.ready(slot)) } }
}

@Suite("Supervisor's decisions")
struct SupervisorMachineTests {
    @Test("starts every worker at once, and tells systemd when all are ready")
    func start() {
        var world = SupervisorWorld(workers: 3)
        #expect(world.serving == [0, 1, 2])
        world.send(.ready(0))
        world.send(.ready(2))
        #expect(!world.notes.contains(.ready))
        world.send(.ready(1))
        #expect(world.notes.filter { $0 == .ready }.count == 1)
        #expect(world.reports == [.allReady(workers: 3)])
    }

    @Test("a worker that dies is replaced in the same moment")
    func death() {
        var world = SupervisorWorld(workers: 2)
        world.allReady()
        world.pass(60_000)
        world.end(1)
        #expect(world.serving == [0, 1])
        #expect(world.reports == [.allReady(workers: 2)])
    }

    @Test("a worker that dies again and again waits longer and longer, up to a bound, and the others are left alone")
    func crashLoop() {
        var world = SupervisorWorld(workers: 2)
        world.allReady()
        world.pass(5000)
        var delays: [Int64] = []
        for _ in 0..<10 {
            let began = world.now
            while world.serving.count < 2 { world.pass(50) }
            delays.append(world.now - began)
            world.pass(100)
            world.end(world.serving.last ?? 0)
        }
        #expect(delays == [0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000].map { Int64($0) })
        #expect(world.serving.contains(0))
        // Once one has lived for a while, the next death costs no time again.
        while world.serving.count < 2 { world.pass(50) }
        world.allReady()
        world.pass(5000)
        world.end(1)
        #expect(world.serving == [0, 1])
    }

    @Test("a worker that stops beating is killed after two seconds, and its seat is filled before its slot is free")
    func missedBeats() {
        var world = SupervisorWorld(workers: 2)
        world.allReady()
        world.pass(10_000)
        world.stopBeating(1)
        world.pass(1900)
        #expect(world.serving == [0, 1])
        world.pass(150)
        #expect(world.serving == [0, 2])
        #expect(world.leaving == [1])
        guard case .missedBeats(slot: 1, _)? = world.reports.last else {
            Issue.record("no report of the missed beats: \(world.reports)")
            return
        }
        world.send(.ready(2))
        world.pass(60_000)
        #expect(world.serving == [0, 2])
        world.end(1)
        #expect(world.serving == [0, 2])
    }

    @Test("a worker that never says a word is killed, one that never gets ready as well")
    func neverReady() {
        var world = SupervisorWorld(workers: 1)
        world.stopBeating(0)
        world.pass(SupervisorStateMachine.Timing.firstBeat + 100)
        #expect(world.reports.contains(.neverReady(slot: 0)))
        world.end(0)
        world.pass(SupervisorStateMachine.Timing.ready + 1000)
        #expect(world.reports.contains(.neverReady(slot: 1)))
    }

    @Test("beats that fell into the supervisor's own pause are not missed")
    func ownPause() {
        var world = SupervisorWorld(workers: 2)
        world.allReady()
        world.pass(1000)
        world.now += 30_000
        world.send(.tick)
        world.pass(10_000)
        #expect(world.serving == [0, 1])
        #expect(world.leaving.isEmpty)
    }

    @Test("a reload replaces one worker at a time, and an old one goes only when its successor serves")
    func reload() {
        var world = SupervisorWorld(workers: 3)
        world.allReady()
        world.pass(1000)
        world.send(.reload(workers: 3, drainMilliseconds: 10_000))
        #expect(world.notes.last == .reloading)
        var ready: Set<Int> = [0, 1, 2]
        for successor in 3...5 {
            #expect(world.serving == (ready.sorted() + [successor]), "before \(successor) is ready")
            #expect(world.leaving.isEmpty)
            world.pass(500)
            world.send(.ready(successor))
            ready.insert(successor)
            ready.subtract(world.leaving)
            #expect(ready.count == 3)
            for slot in world.leaving { world.end(slot) }
            // (Slots that are free again are used again.)
            if successor < 5 { #expect(world.serving.count == 4) }
            if let next = world.serving.first(where: { !ready.contains($0) }), next < 3 {
                world.send(.ready(next))
                ready.insert(next)
                ready.subtract(world.leaving)
                for slot in world.leaving { world.end(slot) }
            }
            if world.notes.last == .ready { break }
        }
        #expect(world.notes.last == .ready)
        #expect(world.reports.last == .reloaded(workers: 3))
        #expect(world.serving.count == 3)
    }

    @Test("a reload waits while too many old workers have not left")
    func reloadIsBounded() {
        var world = SupervisorWorld(workers: 8)
        world.allReady()
        world.send(.reload(workers: 8, drainMilliseconds: 10_000))
        for _ in 0..<20 {
            for slot in world.serving { world.send(.ready(slot)) }
        }
        #expect(world.leaving.count == SupervisorStateMachine.leavingAtOnce)
        #expect(world.serving.count == 8)
    }

    @Test("with the most workers there can be, a reload still finds slots")
    func reloadOfMost() {
        let most = ServerConfiguration.workerLimit
        var world = SupervisorWorld(workers: most)
        world.allReady()
        world.pass(1000)
        world.send(.reload(workers: most, drainMilliseconds: 1000))
        var rounds = 0
        while world.notes.last != .ready, rounds < 1000 {
            rounds += 1
            world.allReady()
            for slot in world.leaving { world.end(slot) }
            world.pass(50)
        }
        #expect(world.reports.last == .reloaded(workers: most))
        #expect(world.serving.count == most)
    }

    @Test("successors that keep dying leave the old workers where they are")
    func reloadThatFails() {
        var world = SupervisorWorld(workers: 2)
        world.allReady()
        world.pass(5000)
        world.send(.reload(workers: 2, drainMilliseconds: 10_000))
        for _ in 0..<50 {
            for slot in world.serving where slot > 1 { world.end(slot) }
            world.pass(500)
        }
        #expect(world.serving.filter { $0 < 2 } == [0, 1])
        #expect(world.leaving.isEmpty)
        #expect(world.notes.last != .ready)
    }

    @Test("an old worker that dies during a reload leaves its seat to its successor")
    func deathDuringReload() {
        var world = SupervisorWorld(workers: 1)
        world.allReady()
        world.pass(5000)
        world.send(.reload(workers: 1, drainMilliseconds: 10_000))
        #expect(world.serving == [0, 1])
        world.end(0)
        #expect(world.serving == [1])
        world.send(.ready(1))
        #expect(world.reports.last == .reloaded(workers: 1))
    }

    @Test("a reload changes the number of workers", arguments: [1, 2, 3, 5])
    func reloadChangesCount(_ count: Int) {
        var world = SupervisorWorld(workers: 3)
        world.allReady()
        world.pass(1000)
        world.send(.reload(workers: count, drainMilliseconds: 10_000))
        var rounds = 0
        while world.notes.last != .ready, rounds < 100 {
            rounds += 1
            world.allReady()
            for slot in world.leaving { world.end(slot) }
            world.pass(50)
        }
        #expect(world.serving.count == count)
        #expect(world.reports.last == .reloaded(workers: count))
    }

    @Test("an end is announced first, then drained, and who stays too long is killed")
    func terminate() {
        var world = SupervisorWorld(workers: 2, drainMilliseconds: 10_000)
        world.allReady()
        world.pass(1000)
        world.send(.terminate)
        #expect(world.notes.last == .stopping)
        #expect(world.announced == [0, 1])
        #expect(world.leaving.isEmpty)
        #expect(world.isListening)
        world.pass(SupervisorStateMachine.Timing.announcement)
        #expect(world.leaving == [0, 1])
        #expect(!world.isListening)
        world.end(0)
        #expect(!world.isFinished)
        world.pass(10_000)
        #expect(world.reports.last == .drainOverdue(slot: 1))
        world.end(1)
        #expect(world.isFinished)
    }

    @Test("no worker is started once the end has begun")
    func deathWhileTerminating() {
        var world = SupervisorWorld(workers: 2)
        world.allReady()
        world.send(.terminate)
        world.end(0)
        world.pass(500)
        #expect(world.serving == [1])
        world.end(1)
        #expect(world.isFinished)
    }

    @Test("whatever happens, slots are kept apart and all comes to rest", arguments: 0..<200)
    func randomLife(_ seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let count = Int.random(in: 1...6, using: &random)
        var world = SupervisorWorld(workers: count)
        var wanted = count
        for _ in 0..<300 {
            switch Int.random(in: 0..<12, using: &random) {
            case 0, 1: if let slot = world.living.keys.sorted().randomElement(using: &random) { world.end(slot) }
            case 2: if let slot = world.serving.randomElement(using: &random) { world.stopBeating(slot) }
            case 3, 4, 5:
                if let slot = world.living.keys.sorted().randomElement(using: &random) { world.send(.ready(slot)) }
            case 6:
                wanted = Int.random(in: 1...6, using: &random)
                world.send(.reload(workers: wanted, drainMilliseconds: 500))
            case 7: world.now += Int64.random(in: 0...5000, using: &random)
            default: world.pass(Int64.random(in: 0...3000, using: &random))
            }
            #expect(world.living.count <= SupervisorStateMachine.slots)
        }
        // Calm weather: killed ones go, new ones get ready.
        for _ in 0..<400 {
            for slot in world.leaving.sorted() { world.end(slot) }
            for (slot, beats) in world.living.sorted(by: { $0.key < $1.key }) where beats { world.send(.ready(slot)) }
            world.pass(200)
        }
        #expect(world.serving.count == wanted)
        #expect(world.leaving.isEmpty)
        #expect(world.notes.last == .ready || world.notes.last == .status("\(wanted) of \(wanted) workers serve"))
        world.send(.terminate)
        world.pass(2000)
        for slot in world.living.keys.sorted() { world.end(slot) }
        #expect(world.isFinished)
    }
}
