// SPDX-License-Identifier: Apache-2.0

/// Decides when worker processes are started, replaced, drained and killed. It sees events and the time, and answers
/// with what is to be done; processes and signals are the shell's (`Supervisor`).
///
/// A *seat* is a place for one serving worker; there are as many as the configuration wants workers. A *slot* is a
/// number that one living process has for itself: it is given away again only after its process is known to be gone.
package struct SupervisorStateMachine: Sendable {
    /// As many processes as there can be at once: those that serve, the newcomer of a roll, and those that leave.
    package static let slots = 64
    /// A roll waits while so many old workers have not left yet.
    package static let leavingAtOnce = 4

    package enum Event: Hashable, Sendable {
        case tick
        /// The worker says that it is alive.
        case beat(Int)
        /// The worker says that it serves.
        case ready(Int)
        /// The process is gone, or could not be started.
        case exited(Int)
        /// Replace every worker, one by one, and have so many of them.
        case reload(workers: Int, drainMilliseconds: Int64)
        /// End them all.
        case terminate
    }

    package enum Action: Hashable, Sendable {
        case spawn(Int)
        /// Tell the worker that this node is about to leave: it goes on serving, and says so on /health/ready.
        case announceLeave(Int)
        /// Ask the worker to finish and leave (SIGTERM).
        case drain(Int)
        /// SIGKILL.
        case kill(Int)
        case closeListener
        case notify(SystemdNotifier.State)
        case report(Report)
        /// Nothing is left to be supervised.
        case finish
    }

    /// What an operator should read in the log.
    package enum Report: Hashable, Sendable {
        case missedBeats(slot: Int, milliseconds: Int64)
        case neverReady(slot: Int)
        case drainOverdue(slot: Int)
        case restartDelayed(milliseconds: Int64, deaths: Int)
        case allReady(workers: Int)
        case reloaded(workers: Int)
    }

    /// In milliseconds.
    package enum Timing {
        package static let missedBeats: Int64 = 2000
        /// From the start of a process to its first sign of life, and to its being ready.
        package static let firstBeat: Int64 = 10_000
        package static let ready: Int64 = 30_000
        /// A worker that dies sooner than this is one of a row of quick deaths.
        package static let quickDeath: Int64 = 1000
        package static let firstRestartDelay: Int64 = 100
        package static let longestRestartDelay: Int64 = 5000
        /// How long a node that leaves goes on accepting, so that balancers see first that it is leaving.
        package static let announcement: Int64 = 1500
        /// How long after the drain's own end a worker that is still there is killed.
        package static let drainGrace: Int64 = 1000
        /// A gap between two ticks from which on it is this process, not the workers, that was stopped.
        package static let ownPause: Int64 = 1000
    }

    private struct Process {
        let slot: Int
        let generation: Int
        var startedAt: Int64
        var lastBeat: Int64?
        var isReady = false
        /// Set where it is leaving.
        var killAt: Int64?
        var isKilled = false
    }

    private struct Seat {
        var incumbent: Process?
        /// Takes over as soon as it is ready.
        var successor: Process?
        var quickDeaths = 0
        var restartAt: Int64 = .min
    }

    private enum Phase {
        case running
        case announcing(until: Int64, killAt: Int64)
        case draining
    }

    private var phase = Phase.running
    private var seats: [Seat]
    private var leaving: [Process] = []
    private var generation = 0
    private var drainMilliseconds: Int64
    private var isAnnounced = false
    private var isReloading = false
    private var serving = 0
    private var lastTick: Int64
    private var actions: [Action] = []

    package init(workers: Int, drainMilliseconds: Int64, now: Int64) {
        precondition((1...SupervisorStateMachine.slots - SupervisorStateMachine.leavingAtOnce).contains(workers))
        self.seats = Array(repeating: Seat(), count: workers)
        self.drainMilliseconds = drainMilliseconds
        self.lastTick = now
    }

    /// - Parameter now: a monotonic time in milliseconds.
    package mutating func handle(_ event: Event, now: Int64) -> [Action] {
        actions = []
        switch event {
        case .tick: tick(now)
        case .beat(let slot): change(slot) { $0.lastBeat = now }
        case .ready(let slot): ready(slot, now)
        case .exited(let slot): exited(slot, now)
        case .reload(let workers, let drainMilliseconds): reload(workers, drainMilliseconds, now)
        case .terminate: terminate(now)
        }
        advance(now)
        return actions
    }

    // MARK: Events

    private mutating func tick(_ now: Int64) {
        let gap = now - lastTick
        lastTick = now
        if gap > Timing.ownPause { return forgive(gap) }
        for index in seats.indices {
            for process in [seats[index].incumbent, seats[index].successor].compactMap({ $0 }) {
                guard let report = verdict(process, now) else { continue }
                actions += [.report(report), .kill(process.slot)]
                abandon(process, in: index, now)
            }
        }
        for index in leaving.indices where !leaving[index].isKilled {
            let process = leaving[index]
            var report: Report?
            if let killAt = process.killAt, now >= killAt {
                report = .drainOverdue(slot: process.slot)
            } else {
                report = verdict(process, now)
            }
            guard let report else { continue }
            actions += [.report(report), .kill(process.slot)]
            leaving[index].isKilled = true
        }
    }

    /// This process was stopped for a while: nothing that fell into it counts.
    private mutating func forgive(_ gap: Int64) {
        func forgiven(_ process: Process) -> Process {
            var process = process
            process.startedAt += gap
            process.lastBeat = process.lastBeat.map { $0 + gap }
            process.killAt = process.killAt.map { $0 + gap }
            return process
        }
        for index in seats.indices {
            seats[index].incumbent = seats[index].incumbent.map(forgiven)
            seats[index].successor = seats[index].successor.map(forgiven)
        }
        leaving = leaving.map(forgiven)
    }

    private func verdict(_ process: Process, _ now: Int64) -> Report? {
        if let lastBeat = process.lastBeat {
            if now - lastBeat >= Timing.missedBeats {
                return .missedBeats(slot: process.slot, milliseconds: now - lastBeat)
            }
        } else if now - process.startedAt >= Timing.firstBeat {
            return .neverReady(slot: process.slot)
        }
        guard !process.isReady, process.killAt == nil, now - process.startedAt >= Timing.ready else { return nil }
        return .neverReady(slot: process.slot)
    }

    /// Its seat is free at once; its slot only when it is gone.
    private mutating func abandon(_ process: Process, in index: Int, _ now: Int64) {
        vacate(process.slot, in: index, process, now)
        var process = process
        process.isKilled = true
        leaving.append(process)
    }

    private mutating func ready(_ slot: Int, _ now: Int64) {
        change(slot) {
            $0.isReady = true
            $0.lastBeat = now
        }
        guard case .running = phase, let index = seats.firstIndex(where: { $0.successor?.slot == slot }) else { return }
        if let old = seats[index].incumbent { drain(old, killAt: now + drainMilliseconds + Timing.drainGrace) }
        seats[index].incumbent = seats[index].successor
        seats[index].successor = nil
    }

    private mutating func exited(_ slot: Int, _ now: Int64) {
        leaving.removeAll { $0.slot == slot }
        for index in seats.indices {
            for process in [seats[index].incumbent, seats[index].successor] where process?.slot == slot {
                if let process { vacate(slot, in: index, process, now) }
            }
        }
    }

    private mutating func vacate(_ slot: Int, in index: Int, _ process: Process, _ now: Int64) {
        if seats[index].incumbent?.slot == slot {
            seats[index].incumbent = seats[index].successor
        }
        seats[index].successor = nil
        let isQuick = !process.isReady || now - process.startedAt < Timing.quickDeath
        seats[index].quickDeaths = isQuick ? min(seats[index].quickDeaths + 1, 16) : 0
        // The first death is chance and costs no time.
        let deaths = seats[index].quickDeaths
        guard deaths > 1, case .running = phase else { return }
        let delay = min(Timing.firstRestartDelay << Int64(deaths - 2), Timing.longestRestartDelay)
        seats[index].restartAt = now + delay
        actions.append(.report(.restartDelayed(milliseconds: delay, deaths: deaths)))
    }

    private mutating func reload(_ workers: Int, _ drainMilliseconds: Int64, _ now: Int64) {
        guard case .running = phase else { return }
        generation += 1
        self.drainMilliseconds = drainMilliseconds
        if !isReloading { actions.append(.notify(.reloading)) }
        isReloading = true
        while seats.count > workers {
            let seat = seats.removeLast()
            for process in [seat.incumbent, seat.successor].compactMap({ $0 }) {
                drain(process, killAt: now + drainMilliseconds + Timing.drainGrace)
            }
        }
        while seats.count < workers { seats.append(Seat()) }
        for index in seats.indices {
            seats[index].quickDeaths = 0
            seats[index].restartAt = .min
            // A newcomer of the roll before this one is outdated before it has begun.
            if let newcomer = seats[index].successor {
                drain(newcomer, killAt: now + drainMilliseconds + Timing.drainGrace)
                seats[index].successor = nil
            }
        }
    }

    private mutating func terminate(_ now: Int64) {
        switch phase {
        case .running:
            let announcement = min(Timing.announcement, drainMilliseconds / 2)
            phase = .announcing(
                until: now + announcement, killAt: now + drainMilliseconds + Timing.drainGrace)
            actions.append(.notify(.stopping))
            actions += members.map { .announceLeave($0.slot) }
        case .announcing(_, let killAt): phase = .announcing(until: now, killAt: killAt)
        case .draining: break
        }
    }

    // MARK: Consequences

    private mutating func advance(_ now: Int64) {
        switch phase {
        case .running:
            for index in seats.indices where seats[index].incumbent == nil && seats[index].restartAt <= now {
                seats[index].incumbent = spawn(now)
            }
            roll(now)
            tellServing()
        case .announcing(let until, let killAt):
            guard now >= until || members.isEmpty else { return }
            phase = .draining
            actions.append(.closeListener)
            for process in members { drain(process, killAt: killAt) }
            seats = []
            if leaving.isEmpty { actions.append(.finish) }
        case .draining:
            if leaving.isEmpty { actions.append(.finish) }
        }
    }

    private mutating func roll(_ now: Int64) {
        guard leaving.count < SupervisorStateMachine.leavingAtOnce, seats.allSatisfy({ $0.successor == nil }),
            let index = seats.firstIndex(where: { seat in
                seat.restartAt <= now && seat.incumbent.map { $0.generation < generation } ?? false
            })
        else { return }
        seats[index].successor = spawn(now)
    }

    private mutating func tellServing() {
        let nowServing = seats.count { $0.incumbent?.isReady == true }
        if nowServing != serving {
            serving = nowServing
            actions.append(.notify(.status("\(serving) of \(seats.count) workers serve")))
        }
        let isComplete = seats.allSatisfy { seat in
            seat.incumbent.map { $0.isReady && $0.generation == generation } ?? false
        }
        guard isComplete, !isAnnounced || isReloading else { return }
        actions.append(.notify(.ready))
        actions.append(.report(isReloading && isAnnounced ? .reloaded(workers: serving) : .allReady(workers: serving)))
        isAnnounced = true
        isReloading = false
    }

    /// Nil where every slot is taken; the next tick tries again.
    private mutating func spawn(_ now: Int64) -> Process? {
        let taken = Set((members + leaving).map(\.slot))
        guard let slot = (0..<SupervisorStateMachine.slots).first(where: { !taken.contains($0) }) else { return nil }
        actions.append(.spawn(slot))
        return Process(slot: slot, generation: generation, startedAt: now)
    }

    private mutating func drain(_ process: Process, killAt: Int64) {
        var process = process
        process.killAt = killAt
        leaving.append(process)
        actions.append(.drain(process.slot))
    }

    private var members: [Process] { seats.flatMap { [$0.incumbent, $0.successor].compactMap { $0 } } }

    private mutating func change(_ slot: Int, _ body: (inout Process) -> Void) {
        for index in seats.indices {
            if var process = seats[index].incumbent, process.slot == slot {
                body(&process)
                seats[index].incumbent = process
            }
            if var process = seats[index].successor, process.slot == slot {
                body(&process)
                seats[index].successor = process
            }
        }
        for index in leaving.indices where leaving[index].slot == slot { body(&leaving[index]) }
    }
}
