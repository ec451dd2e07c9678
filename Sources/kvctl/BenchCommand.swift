// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Control
private import NIOCore
private import NIOHTTP1
private import Synchronization

struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench", abstract: "Measures throughput and latency as a client sees them.",
        discussion: """
            Without --rate, each connection sends its next request when it has the answer to the last one (closed loop). \
            With --rate, requests are due at that rate whatever becomes of them (open loop), and latency counts from when \
            they were due, so that a stall shows in all requests that it held up.

            It stores keys of its own, which are gone after --ttl. Ends with 2 where requests failed.
            """)

    @Option(help: ArgumentHelp("Connections.", valueName: "number"))
    var connections = 16

    @Option(help: ArgumentHelp("Requests a second, open loop.", valueName: "number"))
    var rate: Double?

    @Option(help: ArgumentHelp("How long.", valueName: "seconds"))
    var duration = 10.0

    @Option(help: ArgumentHelp("Of a hundred requests, how many read.", valueName: "number"))
    var gets = 90

    @Option(help: ArgumentHelp("How many different keys.", valueName: "number"))
    var keys = 1000

    @Option(help: ArgumentHelp("Bytes of each value.", valueName: "number"))
    var valueSize = 100

    @Option(help: ArgumentHelp("What its keys begin with.", valueName: "text"))
    var prefix = "kvctl-bench:"

    @Option(help: ArgumentHelp("When its keys are gone again.", valueName: "seconds"))
    var ttl = 3600

    @Option(help: ArgumentHelp("What is drawn at random, drawn again.", valueName: "number"))
    var seed: UInt64 = 1

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard (1...4096).contains(connections) else { throw ValidationError("--connections takes 1 to 4096.") }
        guard rate.map({ $0 > 0 && $0 <= 1e7 }) ?? true else {
            throw ValidationError("--rate takes requests a second.")
        }
        guard duration > 0, duration <= 86_400 else { throw ValidationError("--duration takes seconds, up to a day.") }
        guard (0...100).contains(gets) else { throw ValidationError("--gets takes 0 to 100.") }
        guard (1...10_000_000).contains(keys) else { throw ValidationError("--keys takes 1 to 10000000.") }
        guard (0...(1 << 20)).contains(valueSize) else { throw ValidationError("--value-size takes up to 1048576.") }
        guard (1...86_400_000).contains(ttl) else { throw ValidationError("--ttl takes seconds.") }
    }

    private struct Latency: Encodable {
        let count: UInt64
        let mean: Double
        let p50: Double
        let p90: Double
        let p99: Double
        let p999: Double
        let max: Double

        init(_ histogram: LatencyHistogram) {
            func milliseconds(_ nanoseconds: UInt64) -> Double { Double(nanoseconds) / 1e6 }
            count = histogram.count
            mean = histogram.mean / 1e6
            p50 = milliseconds(histogram.value(atPercentile: 50))
            p90 = milliseconds(histogram.value(atPercentile: 90))
            p99 = milliseconds(histogram.value(atPercentile: 99))
            p999 = milliseconds(histogram.value(atPercentile: 99.9))
            max = milliseconds(histogram.greatest)
        }
    }

    private struct Report: Encodable {
        let seconds: Double
        let connections: Int
        /// What was asked for; nil: a closed loop.
        let rate: Double?
        let requests: Int
        let requestsPerSecond: Double
        let failures: Int
        let missing: Int
        let getMilliseconds: Latency
        let putMilliseconds: Latency
    }

    func run() async throws {
        try await common.withClient(connections: connections) { try await run($0) }
    }

    private func run(_ client: StoreClient) async throws {
        let value = ByteBuffer(repeating: UInt8(ascii: "v"), count: valueSize)
        try await fill(client, value)
        let began = ContinuousClock.now
        let end = began + .seconds(duration)
        let tickets = Tickets()
        let result = await withTaskGroup(of: BenchResult.self) { group in
            for connection in 0..<connections {
                group.addTask {
                    await work(client, value, UInt64(connection), began: began, end: end, tickets)
                }
            }
            return await group.reduce(into: BenchResult()) { $0.add($1) }
        }
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        let report = Report(
            seconds: seconds, connections: connections, rate: rate, requests: result.requests,
            requestsPerSecond: Double(result.requests) / seconds, failures: result.failures,
            missing: result.outcomes[.notFound] ?? 0, getMilliseconds: Latency(result.gets),
            putMilliseconds: Latency(result.puts))
        if common.json { try Console.json(report) } else { try show(report) }
        guard report.failures == 0 else { throw ExitCode(RequestOutcome.unavailable.exitStatus) }
    }

    /// Numbers for an open loop's requests, in the order in which they are due.
    private final class Tickets: Sendable {
        private let next = Atomic(0)
        func take() -> Int { next.add(1, ordering: .relaxed).oldValue }
    }

    private func work(
        _ client: StoreClient, _ value: ByteBuffer, _ number: UInt64, began: ContinuousClock.Instant,
        end: ContinuousClock.Instant, _ tickets: Tickets
    ) async -> BenchResult {
        var result = BenchResult()
        var load = BenchLoad(seed: seed &* 1_000_003 &+ number, keys: keys, gets: gets)
        let schedule = rate.map { BenchSchedule(perSecond: $0) }
        while !Task.isCancelled {
            var due = ContinuousClock.now
            if let schedule {
                due = began + .nanoseconds(Int64(schedule.due(tickets.take())))
                guard due < end else { break }
                try? await Task.sleep(until: due, tolerance: .zero, clock: .continuous)
            }
            // (What was due and has not been sent when the time is over is not sent: a store that is slower than the
            // rate would keep this going.)
            guard ContinuousClock.now < end else { break }
            let request = load.next()
            let outcome: RequestOutcome
            do {
                let answer = try await client.send(message(request, value))
                outcome = answer.outcome(changes: request.isPut)
            } catch {
                outcome = (error as? Failure)?.outcome ?? .unknown
            }
            result.record(request, outcome, nanoseconds: UInt64((ContinuousClock.now - due) / .nanoseconds(1)))
        }
        return result
    }

    private func message(_ request: BenchLoad.Request, _ value: ByteBuffer) -> StoreClient.Request {
        switch request {
        case .get(let key): .init(target: target(key))
        case .put(let key):
            .init(method: .PUT, target: "\(target(key))?ttl=\(ttl)", body: value, isRepeatable: false)
        }
    }

    private func target(_ key: Int) -> String { "/keys/\(PercentEncoding.encode(prefix))\(key)" }

    /// Every key once, so that reads find something.
    private func fill(_ client: StoreClient, _ value: ByteBuffer) async throws {
        guard gets > 0 else { return }
        let tickets = Tickets()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<connections {
                group.addTask {
                    while true {
                        let key = tickets.take()
                        guard key < keys else { return }
                        // (The same value, however often it is stored.)
                        var request = message(.put(key: key), value)
                        request.isRepeatable = true
                        _ = try await client.call(request)
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    private func show(_ report: Report) throws {
        try Console.say(
            "\(report.requests) requests in \(Figures.decimal(report.seconds, places: 1)) s, "
                + "\(Figures.decimal(report.requestsPerSecond, places: 0))/s"
                + (report.rate.map { " of \(Figures.decimal($0, places: 0)) wanted" } ?? "")
                + ", \(report.failures) failed, \(report.missing) missing")
        var table = TextTable(
            ["MS", "COUNT", "MEAN", "P50", "P90", "P99", "P99.9", "MAX"], figures: [1, 2, 3, 4, 5, 6, 7])
        for (name, latency) in [("get", report.getMilliseconds), ("put", report.putMilliseconds)]
        where latency.count > 0 {
            table.append(
                [name, "\(latency.count)"]
                    + [latency.mean, latency.p50, latency.p90, latency.p99, latency.p999, latency.max].map {
                        Figures.decimal($0, places: 3)
                    })
        }
        for line in table.lines { try Console.say(line) }
    }
}

extension BenchLoad.Request {
    fileprivate var isPut: Bool {
        switch self {
        case .get: false
        case .put: true
        }
    }
}
