// SPDX-License-Identifier: Apache-2.0

private import Telemetry
private import CoreMetrics
private import Glibc
private import HashRing
package import Logging
private import Memcached

/// The process that owns the listening socket and its workers' lives, and touches no pair: it performs what
/// `SupervisorStateMachine` decides. One thread, one loop: wait for a signal, listen to the workers, look at the time.
package struct Supervisor: ~Copyable {
    /// What this process was started with. Each worker is started with the same, and what is for workers alone.
    package struct Invocation: Sendable {
        /// An absolute path; looked up anew for each worker, so that a new program takes effect at a reload.
        package let program: String
        package let arguments: [String]
        package let environment: [String: String]

        package init(program: String, arguments: [String], environment: [String: String]) {
            self.program = program
            self.arguments = arguments
            self.environment = environment
        }
    }

    private static let tickMilliseconds = 50
    /// How long another process may still hold the address: workers of a supervisor that died are about to leave.
    private static let bindMilliseconds: Int64 = 5000

    private let invocation: Invocation
    private let readConfiguration: () throws -> (ServerConfiguration, NodeSecrets)
    private let makeLogger: (ServerConfiguration) -> Logger
    private let notifier: SystemdNotifier
    private let signals = ProcessSignals()
    private let cells: HostCells?
    private let metrics = SupervisorMetrics()

    private var configuration: ServerConfiguration
    private var secrets: SecretMemory
    /// What is open that could be closed.
    private var openDoors: [String]
    private var logger: Logger
    private var listener: ListeningSocket?
    /// For clients that speak memcached's protocol, where there are to be any.
    private var memcachedListener: ListeningSocket?
    /// For other nodes, where they have a port of their own.
    private var peerListener: ListeningSocket?
    private var machine: SupervisorStateMachine
    private var workers = WorkerTable()
    /// Slots of workers that were told to leave, or killed.
    private var sentAway: Set<Int> = []
    private var isFinished = false
    private var nextWatchdog: Int64 = 0

    /// Binds the addresses.
    /// - Parameters:
    ///   - secrets: what the workers are to know of them.
    ///   - openDoors: of the configuration with these secrets.
    ///   - cells: what the workers count in; nil: each for itself.
    ///   - readConfiguration: reads it again at a reload.
    package init(
        _ configuration: ServerConfiguration, _ secrets: SecretMemory, openDoors: [String], _ invocation: Invocation,
        cells: HostCells?, readConfiguration: @escaping () throws -> (ServerConfiguration, NodeSecrets),
        makeLogger: @escaping (ServerConfiguration) -> Logger
    ) throws(SystemError) {
        self.secrets = secrets
        self.openDoors = openDoors
        self.configuration = configuration
        self.invocation = invocation
        self.cells = cells
        self.readConfiguration = readConfiguration
        self.makeLogger = makeLogger
        self.logger = makeLogger(configuration)
        self.notifier = SystemdNotifier(environment: invocation.environment, processID: getpid())
        self.listener = try Supervisor.bind(configuration.listen, logger)
        if let address = configuration.memcachedListen {
            self.memcachedListener = try Supervisor.bind(address, logger)
        }
        if let address = configuration.peerListen { self.peerListener = try Supervisor.bind(address, logger) }
        self.machine = SupervisorStateMachine(
            workers: configuration.workers, drainMilliseconds: Int64(configuration.drainSeconds) * 1000,
            now: MonotonicClock.milliseconds())
    }

    private static func bind(
        _ address: NodeID, _ logger: Logger
    ) throws(SystemError) -> ListeningSocket {
        let end = MonotonicClock.milliseconds() + bindMilliseconds
        var isSaid = false
        while true {
            do throws(SystemError) {
                return try ListeningSocket(address)
            } catch {
                guard error.isAddressInUse, MonotonicClock.milliseconds() < end else { throw error }
                if !isSaid {
                    logger.notice("the address is taken; waiting", metadata: ["listen": "\(address)"])
                }
                isSaid = true
                usleep(100_000)
            }
        }
    }

    /// Supervises until it is told to end and all workers are gone.
    package mutating func run() {
        logger.info(
            "supervising",
            metadata: [
                "node": "\(configuration.node)", "listen": "\(configuration.listen)",
                "peers": "\(configuration.peerListen ?? configuration.listen)",
                "workers": "\(configuration.workers)", "memcached": "\(configuration.memcached)",
                "pid": "\(getpid())",
            ])
        warnOfCertificates()
        if cells == nil { logger.warning("there is no memory to share: each worker's metrics are its own alone") }
        warnOfOpenDoors()
        metrics.startTime.set(time(nil))
        metrics.wanted.set(configuration.workers)
        handle(.tick)
        while !isFinished {
            switch signals.next(milliseconds: Supervisor.tickMilliseconds) {
            case .terminate: handle(.terminate)
            case .reload: reload()
            case .childEnded, nil: break
            }
            // What the workers have said counts before the time is looked at.
            for (slot, sign) in workers.readAll() { handle(sign == .ready ? .ready(slot) : .beat(slot)) }
            reap()
            handle(.tick)
            feedWatchdog()
        }
        logger.info("all workers have left")
    }

    private func warnOfCertificates() {
        for warning in secrets.warnings { logger.warning("\(warning)") }
    }

    // MARK: Events

    private mutating func reap() {
        while true {
            var status: Int32 = 0
            let processID = waitpid(-1, &status, WNOHANG)
            guard processID > 0 else { return }
            guard let slot = workers.remove(processID) else { continue }
            cells?.memory.forgetGauges(ofSlot: slot)
            if sentAway.remove(slot) == nil { metrics.died.increment() }
            let end = ProcessEnd(status)
            logger.log(
                level: end == .exited(0) ? .info : .warning, "a worker has ended",
                metadata: ["worker.slot": "\(slot)", "worker.pid": "\(processID)", "worker.end": "\(end)"])
            handle(.exited(slot))
        }
    }

    private mutating func reload() {
        let next: ServerConfiguration
        let read: NodeSecrets
        do {
            (next, read) = try readConfiguration()
        } catch {
            logger.error("the configuration stays as it was", metadata: ["error": "\(error)"])
            return
        }
        // Workers that differ in these must not serve side by side.
        guard
            (
                next.node, next.listen, next.memcachedPort, next.peerPortOffset, next.memcached, next.stateDirectory
            )
                == (
                    configuration.node, configuration.listen, configuration.memcachedPort, configuration.peerPortOffset,
                    configuration.memcached, configuration.stateDirectory
                )
        else {
            logger.error(
                "the configuration stays as it was: node, listen, memcachedPort, peerPortOffset, memcached and stateDirectory need a restart to change"
            )
            return
        }
        // Nor may they while some speak TLS and others don't.
        guard next.speaksTLS == configuration.speaksTLS else {
            logger.error("the configuration stays as it was: to turn TLS on or off needs a restart")
            return
        }
        do throws(SystemError) {
            secrets = try SecretMemory(read)
        } catch {
            logger.error("the configuration stays as it was", metadata: ["error": "\(error)"])
            return
        }
        configuration = next
        openDoors = next.openDoors(read.tokens)
        metrics.wanted.set(next.workers)
        logger = makeLogger(next)
        warnOfCertificates()
        warnOfOpenDoors()
        logger.info("replacing the workers one by one", metadata: ["workers": "\(next.workers)"])
        handle(.reload(workers: next.workers, drainMilliseconds: Int64(next.drainSeconds) * 1000))
    }

    private func warnOfOpenDoors() {
        for door in openDoors { logger.warning("a door is open", metadata: ["door": "\(door)"]) }
    }

    private mutating func feedWatchdog() {
        let now = MonotonicClock.milliseconds()
        guard let interval = notifier.watchdogMilliseconds, now >= nextWatchdog else { return }
        nextWatchdog = now + interval
        notifier.send(.watchdog)
    }

    // MARK: Actions

    private mutating func handle(_ event: SupervisorStateMachine.Event) {
        for action in machine.handle(event, now: MonotonicClock.milliseconds()) {
            switch action {
            case .spawn(let slot): spawn(slot)
            case .announceLeave(let slot): workers.announceLeave(slot)
            case .drain(let slot): sendAway(slot, SIGTERM)
            case .kill(let slot): sendAway(slot, SIGKILL)
            case .closeListener:
                listener = nil
                memcachedListener = nil
                peerListener = nil
            case .notify(let state): notifier.send(state)
            case .report(let report): log(report)
            case .finish: isFinished = true
            }
        }
    }

    private mutating func sendAway(_ slot: Int, _ signal: Int32) {
        sentAway.insert(slot)
        workers.signal(slot, signal)
    }

    private mutating func spawn(_ slot: Int) {
        do {
            guard let descriptor = listener?.descriptor else { return }
            var environment = invocation.environment.filter { !SystemdNotifier.variables.contains($0.key) }
            environment[Lifeline.configurationVariable] = try configuration.encoded
            environment[Allocator.variable] = Allocator.tunables(environment)
            let process = try WorkerProcess(
                program: invocation.program,
                arguments: ["worker", "--slot", "\(slot)"] + invocation.arguments, environment: environment,
                listener: descriptor, memcachedListener: memcachedListener?.descriptor,
                peerListener: peerListener?.descriptor, cells: cells?.descriptor,
                secrets: secrets.descriptor)
            metrics.starts.increment()
            sentAway.remove(slot)
            logger.info(
                "a worker has been started",
                metadata: ["worker.slot": "\(slot)", "worker.pid": "\(process.processID)"])
            workers.insert(process, at: slot)
        } catch {
            logger.error("a worker could not be started", metadata: ["worker.slot": "\(slot)", "error": "\(error)"])
            handle(.exited(slot))
        }
    }

    private func log(_ report: SupervisorStateMachine.Report) {
        switch report {
        case .missedBeats(let slot, let milliseconds):
            metrics.silent.increment()
            logger.warning(
                "a worker has stopped beating and is killed",
                metadata: ["worker.slot": "\(slot)", "worker.silentMilliseconds": "\(milliseconds)"])
        case .neverReady(let slot):
            metrics.neverReady.increment()
            logger.warning("a worker did not get ready and is killed", metadata: ["worker.slot": "\(slot)"])
        case .drainOverdue(let slot):
            metrics.drainsOverdue.increment()
            logger.warning("a worker did not leave in time and is killed", metadata: ["worker.slot": "\(slot)"])
        case .restartDelayed(let milliseconds, let deaths):
            logger.error(
                "a worker keeps dying right after its start; the next one waits",
                metadata: ["restart.delayMilliseconds": "\(milliseconds)", "worker.deaths": "\(deaths)"])
        case .allReady(let workers): logger.info("all workers serve", metadata: ["workers": "\(workers)"])
        case .reloaded(let workers): logger.info("all workers are replaced", metadata: ["workers": "\(workers)"])
        }
    }
}

/// How a process ended, from `waitpid`'s status.
package enum ProcessEnd: Hashable, Sendable, CustomStringConvertible {
    case exited(Int32)
    case killed(signal: Int32)

    package init(_ status: Int32) {
        let signal = status & 0x7f
        self = signal == 0 ? .exited(status >> 8 & 0xff) : .killed(signal: signal)
    }

    package var description: String {
        switch self {
        case .exited(let code): "exit \(code)"
        case .killed(let signal): "signal \(signal)"
        }
    }
}
