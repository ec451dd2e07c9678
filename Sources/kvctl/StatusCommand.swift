// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Control
private import HashRing

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Shows all nodes of the ring, and those that stand by.",
        discussion: "Ends with 2 where a node does not answer, is recovering, or stands on an older ring.")

    @OptionGroup var common: CommonOptions

    private struct Line: Encodable {
        let node: NodeID
        let isAnswering: Bool
        let error: String?
        let version: String?
        let epoch: Epoch?
        let positions: Int
        let isRecovering: Bool?
        let step: String?
        let hints: Int?
        let workers: Int?
        let isMemcachedAnswering: Bool?
        let uptimeSeconds: Int?
    }

    private struct Report: Encodable {
        let epoch: Epoch
        let replicas: Int
        let nodes: [Line]
        let change: ChangeProgress?
        let isWell: Bool
    }

    func run() async throws {
        try await common.withClient { client in
            let ring = try await client.ring()
            var found = await client.statuses(of: ring.everybody)
            // Whoever a change brings in is not in the ring yet.
            let known = Set(found.map(\.node))
            let joining = Set(found.flatMap { (try? $0.status.get())?.transition?.to.ring.nodes ?? [] }).subtracting(
                known)
            if !joining.isEmpty { found += await client.statuses(of: joining.sorted()) }
            let statuses = found.compactMap { try? $0.status.get() }
            let epoch = max(statuses.map(\.epoch).max() ?? .none, ring.epoch)
            let newest = statuses.filter { $0.epoch == epoch }.first
            let lines = found.map { line($0.node, $0.status, of: newest?.ring.ring ?? ring.ring.ring) }
            let isWell = lines.allSatisfy { line in
                line.isAnswering && line.isRecovering == false && line.epoch == epoch
                    && line.isMemcachedAnswering == true
            }
            let report = Report(
                epoch: epoch, replicas: ring.replicas, nodes: lines, change: ChangeProgress(statuses), isWell: isWell)
            if common.json { try Console.json(report) } else { try show(report) }
            guard isWell else { throw ExitCode(RequestOutcome.unavailable.exitStatus) }
        }
    }

    private func line(_ node: NodeID, _ status: Result<NodeStatus, Failure>, of ring: Ring) -> Line {
        let positions = ring.positions(of: node).count
        switch status {
        case .success(let status):
            return Line(
                node: node, isAnswering: true, error: nil, version: status.version, epoch: status.epoch,
                positions: positions, isRecovering: status.isRecovering, step: status.transition?.step.rawValue,
                hints: status.hints.waiting, workers: status.workers.count,
                isMemcachedAnswering: status.memcached.isAnswering, uptimeSeconds: status.uptimeSeconds)
        case .failure(let failure):
            return Line(
                node: node, isAnswering: false, error: failure.message, version: nil, epoch: nil,
                positions: positions, isRecovering: nil, step: nil, hints: nil, workers: nil,
                isMemcachedAnswering: nil, uptimeSeconds: nil)
        }
    }

    private func show(_ report: Report) throws {
        var table = TextTable(
            ["NODE", "STATE", "EPOCH", "POSITIONS", "CHANGE", "HINTS", "WORKERS", "MEMCACHED", "UP"],
            figures: [2, 3, 5, 6])
        for line in report.nodes {
            let state = !line.isAnswering ? "DOWN" : line.isRecovering == true ? "recovering" : "ok"
            table.append([
                line.node.description, state, line.epoch.map { "\($0)" } ?? "-",
                line.positions > 0 ? "\(line.positions)" : "standby", line.step ?? "-",
                line.hints.map { "\($0)" } ?? "-", line.workers.map { "\($0)" } ?? "-",
                line.isMemcachedAnswering.map { $0 ? "ok" : "DOWN" } ?? "-",
                line.uptimeSeconds.map { Figures.duration(seconds: Double($0)) } ?? "-",
            ])
        }
        for line in table.lines { try Console.say(line) }
        try Console.say("epoch \(report.epoch), \(report.replicas) replicas")
        if let change = report.change { try Console.say("ring change under way: \(change.change); \(change.line)") }
        for line in report.nodes { if let error = line.error { Console.error(error) } }
    }
}
