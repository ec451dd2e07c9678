// SPDX-License-Identifier: Apache-2.0

package import AccessControl
private import CoreMetrics
private import DequeModule
private import FoundationEssentials
package import HashRing
internal import KeyValue
package import NIOCore
private import RequestTracing
package import Tracing
package import TransportSecurity

/// Another node's pairs: what is sent in one tick travels as one `POST /peer/batch`; while all connections are busy,
/// what comes waits and travels together. Belongs to one event loop.
package final class RemoteReplica: Replica {
    /// What this side puts into each batch, and what it makes of the other side's ring.
    package struct Hooks {
        /// This worker's document and clock; nil while it has no ring.
        package let epoch: () -> Epoch?
        package let clock: () -> UInt64
        package let merge: (UInt64) -> Void
        /// The other side refused: its document, older or newer than ours, or none.
        package let refused: (NodeID, RingDocument?) -> Void
        /// Nil where nobody wants spans.
        package let tracer: () -> (any Tracer)?

        package init(
            epoch: @escaping () -> Epoch?, clock: @escaping () -> UInt64, merge: @escaping (UInt64) -> Void,
            refused: @escaping (NodeID, RingDocument?) -> Void, tracer: @escaping () -> (any Tracer)? = { nil }
        ) {
            self.epoch = epoch
            self.clock = clock
            self.merge = merge
            self.refused = refused
            self.tracer = tracer
        }
    }

    private let node: NodeID
    private let door: PeerDoor
    private let tls: PeerTLS?
    private let loop: any EventLoop
    private let hooks: Hooks
    private let totals: CoordinatorMetrics
    private let metrics: PeerMetrics
    private var waiting = Deque<Leg>()
    private var waitingBytes = 0
    private var idle: [PeerConnection] = []
    private var connectionCount = 0
    private var isConnecting = false
    private var isFlushScheduled = false
    /// After a failed connect nothing is tried for a moment: requests fail fast instead of queueing up.
    private var quietUntil = NIODeadline.uptimeNanoseconds(0)

    /// Until then this node is taken for one that does not answer.
    private var troubleUntil = NIODeadline.uptimeNanoseconds(0)

    /// Its slowest answer of late, and until when that counts.
    private var slowest = Slowness.quick
    private var slowestUntil = NIODeadline.uptimeNanoseconds(0)

    private static let troubleTime = TimeAmount.seconds(1)
    /// Whoever was slow is asked last for so long. (Less, and many a read would find out anew.)
    private static let slownessTime = TimeAmount.seconds(10)
    private static let leastTime = TimeAmount.milliseconds(10)
    private static let connectTimeout = TimeAmount.milliseconds(250)
    /// After this much silence, reads are asked again on another connection.
    private static let patience = TimeAmount.milliseconds(300)
    private static let quietTime = TimeAmount.milliseconds(100)
    static let path = "/peer/batch"
    static let contentType = "application/octet-stream"

    package init(
        node: NodeID, door: PeerDoor, tls: PeerTLS? = nil, loop: any EventLoop, metrics: CoordinatorMetrics,
        hooks: Hooks
    ) {
        self.node = node
        self.door = door
        self.tls = tls
        self.totals = metrics
        self.metrics = PeerMetrics(node)
        self.loop = loop
        self.hooks = hooks
    }

    var waitingOperations: Int { waiting.count }

    /// Whether it did not answer a moment ago; whoever can should ask another.
    package var isInTrouble: Bool { troubleUntil > .now() }

    /// How long it took to answer, of late.
    package var slowness: Slowness { slowest > .quick && slowestUntil > .now() ? slowest : .quick }

    private func noteAnswer(after time: TimeAmount) {
        let slowness = Slowness(of: time)
        guard slowness >= self.slowness else { return }
        slowest = slowness
        slowestUntil = .now() + RemoteReplica.slownessTime
    }

    private func noteTrouble() { troubleUntil = .now() + RemoteReplica.troubleTime }

    package func send(_ leg: Leg) {
        guard waiting.count < Limits.waitingOperations, waitingBytes < Limits.waitingBytes else {
            return leg.fail(.overloaded, wasSent: false)
        }
        leg.trace?.asked(node)
        waiting.append(leg)
        waitingBytes += leg.operation.weight
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        loop.assumeIsolated().execute {
            self.isFlushScheduled = false
            self.flush()
        }
    }

    /// No request is under way after this.
    package func close() {
        for connection in idle { connection.close() }
        idle = []
    }

    private func flush() {
        while !waiting.isEmpty {
            while let connection = idle.last, !connection.isUsable { idle.removeLast() }
            if let connection = idle.popLast() {
                sendBatch(on: connection)
                continue
            }
            guard connectionCount < Limits.connectionsPerPeer, !isConnecting else { return }
            if NIODeadline.now() < quietUntil { return failAll(.nodeUnreachable) }
            connect()
            return
        }
    }

    private func connect() {
        isConnecting = true
        connectionCount += 1
        PeerConnection.connect(
            to: node, by: door, over: tls, on: loop, timeout: RemoteReplica.connectTimeout,
            bodyLimit: Limits.peerBodyBytes
        ) { result in
            self.isConnecting = false
            switch result {
            case .success(let connection):
                connection.onClose = {
                    self.connectionCount -= 1
                    self.flush()
                }
                self.idle.append(connection)
                self.flush()
            case .failure:
                self.connectionCount -= 1
                guard self.connectionCount == 0 else { return }
                self.quietUntil = .now() + RemoteReplica.quietTime
                self.noteTrouble()
                self.failAll(.nodeUnreachable)
            }
        }
    }

    private func sendBatch(on connection: PeerConnection) {
        let epoch = hooks.epoch()
        let legs = takeBatch(under: epoch)
        guard let first = legs.first, let epoch else {
            idle.append(connection)
            return
        }
        var body = ByteBuffer()
        PeerBatchCodec.encode(
            PeerBatch(epoch: epoch, clock: hooks.clock(), operations: legs.map(\.operation)), into: &body)
        let deadline = legs.reduce(first.deadline) { min($0, $1.deadline) }
        let flight = Flight(legs, isOnKeptConnection: connection.hasAnswered)
        let carried = carriedRequests(of: legs)
        let began = NIODeadline.now()
        totals.peerBatchOperations.record(legs.count)
        metrics.operations.increment(by: legs.count)
        flight.patience = loop.assumeIsolated().scheduleTask(in: RemoteReplica.patience) {
            // The worker at the other end may have stopped, while others of its host live. The connection counts no
            // more, and is closed once it has answered.
            flight.isSuspect = true
            self.noteTrouble()
            self.connectionCount -= 1
            connection.onClose = {}
            self.sendAgain(flight.takeReads())
        }
        connection.post(
            RemoteReplica.path, contentType: RemoteReplica.contentType, body: body, requests: carried.text,
            deadline: deadline
        ) { result in
            flight.patience?.cancel()
            self.end(carried.spans, result, operations: flight.legs.count)
            let time = NIODeadline.now() - began
            self.totals.peerBatchDuration.recordNanoseconds(time.nanoseconds)
            // (One that is not there is in trouble, not slow.)
            if case .success(let answer) = result, answer.status == 200 { self.noteAnswer(after: time) }
            if flight.isSuspect {
                connection.close()
            } else if connection.isUsable {
                self.idle.append(connection)
            }
            self.received(result, for: flight)
            self.flush()
        }
    }

    /// By which names the requests of these operations are found again, for the other node's log.
    private func carriedRequests(of legs: [Leg]) -> CarriedRequestField {
        var field = CarriedRequestField()
        for leg in legs {
            if let trace = leg.trace { field.add(trace, hooks.tracer()) }
        }
        return field
    }

    private func end(
        _ spans: [any Span], _ result: Result<PeerConnection.Answer, PeerConnection.Failure>, operations: Int
    ) {
        guard !spans.isEmpty else { return }
        var attributes: SpanAttributes = [
            "peer.node": .string(node.description), "batch.operations": .int64(Int64(operations)),
        ]
        var isFailure = true
        if case .success(let answer) = result {
            attributes.set("status", value: .int64(Int64(answer.status)))
            isFailure = answer.status >= 500
        }
        for span in spans { span.end(attributes, isFailure: isFailure) }
    }

    /// A batch under way. Its reads may be taken out of it, to be asked again elsewhere.
    private final class Flight {
        private(set) var legs: [Leg?]
        var patience: Scheduled<Void>?
        var isSuspect = false
        /// Sent on a connection that had answered before, so that its worker may have died unnoticed.
        let isOnKeptConnection: Bool

        init(_ legs: [Leg], isOnKeptConnection: Bool) {
            self.legs = legs
            self.isOnKeptConnection = isOnKeptConnection
        }

        func takeReads() -> [Leg] {
            var reads: [Leg] = []
            for (index, leg) in legs.enumerated() {
                guard let leg, !leg.operation.isWrite else { continue }
                reads.append(leg)
                legs[index] = nil
            }
            return reads
        }
    }

    /// Asks again, as often as may be; a read has no effect, and another worker may answer it.
    private func sendAgain(_ reads: [Leg]) {
        for leg in reads {
            guard leg.triesLeft > 0, leg.deadline > .now() else {
                leg.fail(.nodeUnreachable, wasSent: false)
                continue
            }
            send(leg.again)
        }
    }

    /// The oldest legs that fit into one batch; those whose time is up, or whose ring is no longer this worker's, are
    /// answered instead.
    private func takeBatch(under epoch: Epoch?) -> [Leg] {
        let now = NIODeadline.now()
        var legs: [Leg] = []
        var bytes = 0
        while legs.count < Limits.peerBatchOperations, bytes < Limits.peerBatchBytes, let leg = waiting.popFirst() {
            waitingBytes -= leg.operation.weight
            // One whose time is nearly up would cut the others' short.
            guard leg.deadline > now + RemoteReplica.leastTime else {
                leg.fail(.deadline, wasSent: false)
                continue
            }
            guard leg.epoch == epoch else {
                leg.completion(.failed(.staleRing))
                continue
            }
            bytes += leg.operation.weight
            legs.append(leg)
        }
        return legs
    }

    private func received(_ result: Result<PeerConnection.Answer, PeerConnection.Failure>, for flight: Flight) {
        switch result {
        case .failure(let failure):
            metrics.failed.increment()
            let reads = flight.takeReads()
            // All kept connections may lead to the one worker that has just died: none of them is a try. Each breaks
            // once.
            if flight.isOnKeptConnection { for leg in reads { send(leg) } } else { sendAgain(reads) }
            for leg in flight.legs { leg?.fail(.nodeUnreachable, wasSent: failure.wasSent) }
        case .success(let answer) where answer.status == 200:
            var body = answer.body
            guard let decoded = try? PeerBatchCodec.decodeAnswer(&body), decoded.outcomes.count == flight.legs.count
            else {
                metrics.refused.increment()
                for leg in flight.legs { leg?.fail(.protocolViolation, wasSent: true) }
                return
            }
            metrics.answered.increment()
            hooks.merge(decoded.clock)
            for (leg, outcome) in zip(flight.legs, decoded.outcomes) { leg?.completion(outcome) }
        case .success(let answer) where answer.status == 409:
            metrics.stale.increment()
            let document = try? JSONDecoder().decode(RingDocument.self, from: Data(answer.body.readableBytesView))
            hooks.refused(node, document)
            for leg in flight.legs { leg?.completion(.failed(.staleRing)) }
        case .success(let answer):
            metrics.refused.increment()
            // Who refuses is there: nobody stands in for it.
            let reason: OperationFailure.Reason = answer.status == 503 ? .overloaded : .protocolViolation
            for leg in flight.legs { leg?.fail(reason, wasSent: !answer.isNotApplied) }
        }
    }

    private func failAll(_ reason: OperationFailure.Reason) {
        let legs = waiting
        waiting = []
        waitingBytes = 0
        for leg in legs { leg.fail(reason, wasSent: false) }
    }
}
