// SPDX-License-Identifier: Apache-2.0

internal import CoreMetrics
internal import HashRing

/// What a worker's coordinator counts, by way of swift-metrics.
package struct CoordinatorMetrics: Sendable {
    /// Pairs that were sent to nodes that a read had found to lack them.
    let readRepairs = Counter(label: "kvserver_read_repairs_total")
    /// The same where the read waited for it.
    let writeBacks = Counter(label: "kvserver_read_write_backs_total")
    /// Of all peers together.
    let peerBatchOperations = Recorder(label: "kvserver_peer_batch_operations")
    let peerBatchDuration = Timer(label: "kvserver_peer_batch_duration_seconds")

    package init() {}
}

/// What it counts of one other node.
struct PeerMetrics: Sendable {
    let operations: Counter
    let answered: Counter
    /// The other side stands on another ring.
    let stale: Counter
    /// It did not take the batch, or its answer could not be read.
    let refused: Counter
    /// The connection broke, or the time was up.
    let failed: Counter

    init(_ node: NodeID) {
        let peer = ("peer", "\(node)")
        func batches(_ result: String) -> Counter {
            Counter(label: "kvserver_peer_batches_total", dimensions: [peer, ("result", result)])
        }
        operations = Counter(label: "kvserver_peer_operations_total", dimensions: [peer])
        answered = batches("answered")
        stale = batches("stale_ring")
        refused = batches("refused")
        failed = batches("failed")
    }
}

/// What anti-entropy counts, by way of swift-metrics: `AntiEntropy.Report` added up over the passes.
struct AntiEntropyMetrics: Sendable {
    let passed = Counter(label: "kvserver_antientropy_passes_total", dimensions: [("result", "done")])
    let failed = Counter(label: "kvserver_antientropy_passes_total", dimensions: [("result", "failed")])
    let differingSlots = Counter(label: "kvserver_antientropy_differing_slots_total")
    let repairedPairs = Counter(label: "kvserver_antientropy_repaired_pairs_total")

    func ended(_ report: AntiEntropy.Report) {
        if report.error == nil { passed.increment() } else { failed.increment() }
        differingSlots.increment(by: report.slotsDiffering)
        repairedPairs.increment(by: report.pairsRepaired)
    }
}

/// What the sweep over chunks counts.
struct ChunkSweepMetrics: Sendable {
    private let chunks = Counter(label: "kvserver_chunks_deleted_total")

    func deleted(_ count: Int) { chunks.increment(by: count) }
}
