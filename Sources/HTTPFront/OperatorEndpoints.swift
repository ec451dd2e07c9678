// SPDX-License-Identifier: Apache-2.0

private import Cluster
internal import NIOCore

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

    /// All of this node's pairs as one JSON object, written as they are read.
    func streamPairs(_ id: RequestID) {
        let operators = front.operators
        stream(id, AnswerStream(.json(opening: "{"))) { push in
            try await operators.forEachPair { try await push(JSONText.pairs($0)) }
            return "}"
        }
    }

    /// Answers with what is written as it is made.
    /// - Parameter produce: is given what takes the pieces, each of which is awaited; returns what comes last.
    func stream(
        _ id: RequestID, _ stream: AnswerStream, _ kind: OperatorTaskKind = .stream,
        _ produce: @escaping @Sendable (_ push: @Sendable (ByteBuffer) async throws -> Void) async throws -> String
    ) {
        streams[id] = stream
        let connection = NIOLoopBound(self, eventLoop: front.loop)
        let loop = front.loop
        let isTaken = front.tasks.run(kind) {
            let result: Result<String, any Error>
            do {
                result = .success(
                    try await produce { piece in
                        try await loop.flatSubmit {
                            let taken = loop.makePromise(of: Void.self)
                            connection.value.push(piece, to: id, taken: taken)
                            return taken.futureResult
                        }.get()
                    })
            } catch {
                result = .failure(error)
            }
            loop.execute { connection.value.finishStream(id, result) }
        }
        guard !isTaken else { return }
        streams[id] = nil
        complete(id, busy)
    }

    func push(_ piece: ByteBuffer, to id: RequestID, taken: EventLoopPromise<Void>) {
        guard let stream = streams[id] else { return taken.fail(AnswerStream.Abandoned()) }
        stream.push(piece, taken: taken)
        advance()
    }

    func finishStream(_ id: RequestID, _ result: Result<String, any Error>) {
        guard let stream = streams[id] else { return }
        stream.finish(result)
        advance()
    }
}
