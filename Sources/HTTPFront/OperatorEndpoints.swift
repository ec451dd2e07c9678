// SPDX-License-Identifier: Apache-2.0

private import Cluster
private import NIOCore

/// This node's pairs as a whole, its status, its metrics and its health.
extension HTTPFrontHandler {
    func clear(_ id: RequestID) {
        let operators = front.operators
        handOver(id) {
            do throws(OperatorError) {
                _ = try await operators.clear()
                return .ok
            } catch {
                return ErrorAnswer.operation(error)
            }
        }
    }

    func tellStatus(_ id: RequestID) {
        let operators = front.operators
        handOver(id) { .json(await operators.status()) }
    }

    func tellMetrics(_ id: RequestID) {
        let operators = front.operators
        handOver(id) { Answer(.ok, .metrics, await operators.metrics()) }
    }

    func tellReadiness(_ id: RequestID) {
        let reason: String?
        if front.isLeaving {
            reason = "This worker is being stopped."
        } else if let obstacle = front.obstacle() {
            // It may be why memcached is not used at all.
            reason = obstacle
        } else {
            switch front.data.standing {
            case .unconfirmed: reason = "This node's memcached does not answer yet."
            case .none: reason = "This node has no ring. POST one to /hash_ring."
            case .present: reason = nil
            }
        }
        complete(
            id,
            reason.map(ErrorAnswer.notReady)
                ?? .text(front.recovery().map { "ready, and recovering: \($0)\n" } ?? "ready\n"))
    }

    /// All pairs as one JSON object, written as they are read.
    func streamPairs(_ id: RequestID) {
        let stream = PairStream()
        streams[id] = stream
        let connection = NIOLoopBound(self, eventLoop: front.loop)
        let loop = front.loop
        let operators = front.operators
        let isTaken = front.tasks.run(.stream) {
            var failure: (any Error)?
            do {
                try await operators.forEachPair { pairs in
                    let piece = JSONText.pairs(pairs)
                    try await loop.flatSubmit {
                        let taken = loop.makePromise(of: Void.self)
                        connection.value.push(piece, to: id, taken: taken)
                        return taken.futureResult
                    }.get()
                }
            } catch {
                failure = error
            }
            let outcome = failure
            loop.execute { connection.value.finishStream(id, outcome) }
        }
        guard !isTaken else { return }
        streams[id] = nil
        complete(id, busy)
    }

    private func push(_ piece: ByteBuffer, to id: RequestID, taken: EventLoopPromise<Void>) {
        guard let stream = streams[id] else { return taken.fail(PairStream.Abandoned()) }
        stream.push(piece, taken: taken)
        advance()
    }

    private func finishStream(_ id: RequestID, _ error: (any Error)?) {
        guard let stream = streams[id] else { return }
        stream.finish(error)
        advance()
    }
}
