// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Control
private import HashRing

struct WatchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch", abstract: "Shows nodes, request rates and latencies, live, from the nodes' metrics.",
        discussion: "A table that is redrawn on a terminal; a line each time in a pipe.")

    @Option(help: ArgumentHelp("How often.", valueName: "seconds"))
    var interval = 2.0

    @Option(help: ArgumentHelp("So many times, and then end.", valueName: "number"))
    var count: Int?

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard interval >= 0.1, interval <= 3600 else { throw ValidationError("--interval takes 0.1 to 3600 seconds.") }
        if let count, count < 1 { throw ValidationError("--count takes a number from 1 up.") }
    }

    /// A node at one look.
    private struct Look {
        let at: ContinuousClock.Instant
        let samples: [MetricSample]
    }

    private struct Line: Encodable {
        let node: NodeID
        /// Nil where it does not answer.
        let rates: NodeRates?
    }

    private struct Report: Encodable {
        let seconds: Double
        let nodes: [Line]
        let requestsPerSecond: Double
        let errorsPerSecond: Double
        let hopsPerSecond: Double
        /// Of the slowest node.
        let p99Milliseconds: Double?
    }

    func run() async throws {
        try await common.withClient { client in
            var nodes = try await client.ring().everybody
            let began = ContinuousClock.now
            var before = await look(at: nodes, client)
            var left = count ?? .max
            while left > 0 {
                try await Task.sleep(for: .seconds(interval))
                // (Where nobody tells of a newer ring, the nodes that are known are looked at.)
                if let ring = try? await client.ring() { nodes = ring.everybody }
                let now = await look(at: nodes, client)
                let lines = nodes.map { node in line(node, before[node], now[node]) }
                let rates = lines.compactMap(\.rates)
                let report = Report(
                    seconds: (ContinuousClock.now - began) / .seconds(1), nodes: lines,
                    requestsPerSecond: rates.reduce(0) { $0 + $1.requestsPerSecond },
                    errorsPerSecond: rates.reduce(0) { $0 + $1.errorsPerSecond },
                    hopsPerSecond: rates.reduce(0) { $0 + $1.hopsPerSecond },
                    p99Milliseconds: rates.compactMap(\.p99Milliseconds).max())
                try show(report)
                before = now
                left -= 1
            }
        }
    }

    private func line(_ node: NodeID, _ before: Look?, _ now: Look?) -> Line {
        guard let now else { return Line(node: node, rates: nil) }
        // One that is new, or was away, shows its rates from the next look on.
        let earlier = before ?? now
        return Line(
            node: node,
            rates: NodeRates(
                from: earlier.samples, to: now.samples, seconds: (now.at - earlier.at) / .seconds(1)))
    }

    private func look(at nodes: [NodeID], _ client: StoreClient) async -> [NodeID: Look] {
        let seconds = min(common.timeout, interval)
        return await withTaskGroup(of: (NodeID, Look?).self) { group in
            for node in nodes {
                group.addTask {
                    let answer = try? await client.send(.init(target: "/metrics", node: node, seconds: seconds))
                    guard let answer, answer.status == 200 else { return (node, nil) }
                    return (node, Look(at: .now, samples: MetricsText.samples(answer.text)))
                }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
    }

    private func show(_ report: Report) throws {
        if common.json { return try Console.json(report) }
        func milliseconds(_ number: Double?) -> String { number.map { Figures.decimal($0, places: 2) } ?? "-" }
        let summary =
            "\(Figures.duration(seconds: report.seconds)): \(report.nodes.count { $0.rates != nil }) of "
            + "\(report.nodes.count) nodes, \(Figures.short(report.requestsPerSecond)) requests/s, "
            + "\(Figures.short(report.errorsPerSecond)) errors/s, \(Figures.short(report.hopsPerSecond)) hops/s, "
            + "p99 \(milliseconds(report.p99Milliseconds)) ms"
        guard Console.isTerminal else { return try Console.say(summary) }
        var table = TextTable(
            ["NODE", "REQUESTS/S", "ERRORS/S", "P50 MS", "P99 MS", "HOPS/S", "CONNECTIONS", "MEMORY", "EPOCH"],
            figures: [1, 2, 3, 4, 5, 6, 7, 8])
        for line in report.nodes {
            guard let rates = line.rates else {
                table.append([line.node.description, "DOWN"])
                continue
            }
            table.append([
                line.node.description, Figures.short(rates.requestsPerSecond), Figures.short(rates.errorsPerSecond),
                milliseconds(rates.medianMilliseconds), milliseconds(rates.p99Milliseconds),
                Figures.short(rates.hopsPerSecond), "\(rates.connections)",
                rates.memoryUsed.map { Figures.decimal($0 * 100, places: 1) + " %" } ?? "-", "\(rates.epoch)",
            ])
        }
        // From the upper left corner on, and nothing behind it.
        try Console.write(Array("\u{1B}[H\u{1B}[J\(summary)\n\n\(table.lines.joined(separator: "\n"))\n".utf8))
    }
}
