// SPDX-License-Identifier: Apache-2.0

private import Cluster
private import CoreMetrics
private import Glibc
private import Logging
private import Supervision
private import Telemetry

/// `KVServer worker --slot N …`: only a supervisor can start one. The arguments behind the slot are the supervisor's
/// own, for whoever looks at the list of processes; what counts is the configuration in the environment.
enum WorkerCommand {
    /// After the supervisor's death a worker serves its connections for so long, and no longer.
    static let orphanMilliseconds: Int64 = 2000
    /// And after that is ended, whatever it does.
    private static let orphanGraceMilliseconds: Int64 = 1000

    static func run(_ arguments: [String]) -> Never {
        let environment = ProcessEnvironment.variables()
        guard arguments.count >= 2, arguments[0] == "--slot", let slot = Int(arguments[1]),
            (0..<WorkerRegistry.slots).contains(slot), let text = environment[Lifeline.configurationVariable],
            let configuration = try? ServerConfiguration(encoded: text), let lifeline = Lifeline()
        else {
            LogLineHandler.writeToStandardError("KVServer: only a supervisor starts workers; see KVServer --help\n")
            exit(ExitStatus.usage)
        }
        MetricsSystem.bootstrap(
            PrometheusMetricsFactory(lifeline.cells.part(ofSlot: slot), bounds: MetricCatalogue.bounds))
        Scheduling.preferBatches()
        var logger = Logger(
            settings: configuration, isJournal: LogLineHandler.isJournal(environment["JOURNAL_STREAM"]))
        logger[metadataKey: "worker.slot"] = "\(slot)"
        let (orders, orderSink) = AsyncStream<Lifeline.Order>.makeStream()
        let worker = Worker(
            configuration: configuration, slot: slot, lifeline: lifeline, failpoints: environment["KV_FAILPOINTS"],
            logger: logger)
        // The root of all that is structured in this process: it stands for an asynchronous main, whose thread watches
        // the supervisor instead.
        Task { exit(await worker.run(orders)) }
        lifeline.watch(orphanMilliseconds: orphanMilliseconds + orphanGraceMilliseconds) { orderSink.yield($0) }
    }
}
