// SPDX-License-Identifier: Apache-2.0

private import Control
private import FoundationEssentials
private import HashRing
private import Supervision

/// Nodes' statuses, as kvctl and the page read them: whatever a node says, there is something to show.
@Sendable func fuzzStatus(_ bytes: UnsafeRawBufferPointer) {
    let data = Data(bytes)
    if let answer = try? JSONDecoder().decode(RingAnswer.self, from: data) { _ = answer.everybody }
    guard let status = try? JSONDecoder().decode(NodeStatus.self, from: data) else { return }
    if let ring = BalancerRing(status) {
        hold(ring.ring.nodes.allSatisfy(ring.everybody.contains), "an owner that is nobody")
        hold(!BalancerPlan(ring: ring, servers: [], mapEntries: []).actions.isEmpty, "a ring that asks for nothing")
    }
    if let progress = ChangeProgress([status, status]) {
        hold((0...1).contains(progress.share), "more done than there is")
        hold(progress.bar(width: 80).utf8.count < 1000, "a bar without end")
    }
    var held = [somebody: status.uptimeSeconds]
    held[status.node] = status.snapshot?.pairs
    _ = try? ChangePreview(.exactly(.remove(node: status.node)), of: status.document).estimatedPairs(held: held)
}

/// A node's configuration file: what is taken a worker reads again, and what is refused is said in one line.
@Sendable func fuzzConfiguration(_ bytes: UnsafeRawBufferPointer) {
    do throws(ConfigurationError) {
        let file = try ConfigurationLayer(json: bytes, path: "file")
        let configuration = try ServerConfiguration([file])
        guard let line = try? configuration.encoded, let again = try? ServerConfiguration(encoded: line) else {
            fatalError("a worker can't read it")
        }
        hold(again == configuration && !line.utf8.contains(UInt8(ascii: "\n")), "a worker reads another one")
        _ = configuration.allowedPeers
    } catch {
        hold(!error.description.isEmpty && !error.isUsage, "it is said otherwise")
    }
}

/// Nodes' metrics: whatever a node says, there is something to show.
@Sendable func fuzzMetrics(_ bytes: UnsafeRawBufferPointer) {
    let middle = bytes.count / 2
    let before = MetricsText.samples(String(decoding: bytes[..<middle], as: UTF8.self))
    let after = MetricsText.samples(String(decoding: bytes[middle...], as: UTF8.self))
    let rates = NodeRates(from: before, to: after, seconds: 1)
    for number in [rates.requestsPerSecond, rates.errorsPerSecond, rates.hopsPerSecond, rates.memoryUsed ?? 0] {
        _ = Figures.short(number)
    }
    for time in [rates.medianMilliseconds, rates.p99Milliseconds] {
        _ = Figures.duration(seconds: (time ?? 0) / 1000)
        _ = Figures.bytes(time ?? 0)
    }
}

/// What HAProxy's admin socket says.
@Sendable func fuzzBalancer(_ bytes: UnsafeRawBufferPointer) {
    let text = String(decoding: bytes, as: UTF8.self)
    let servers = (try? BalancerAnswers.servers(text)) ?? []
    _ = try? BalancerAnswers.requests(text, backend: "nodes")
    _ = try? BalancerAnswers.preparedVersion(text)
    _ = BalancerAnswers.mapNames(text)
    let ring = BalancerRing(epoch: Epoch(3), ring: Ring(seats: [seat])!, replicas: 1)
    let plan = BalancerPlan(ring: ring, servers: servers, mapEntries: BalancerAnswers.mapEntries(text))
    hold(plan.actions.count <= 2 * servers.count + 2, "more to do than there is")
}

private let somebody = NodeID("10.0.0.1:5000")!
private let seat = Ring.Seat(position: Position(3000)!, node: NodeID("127.0.0.11:5000")!)
