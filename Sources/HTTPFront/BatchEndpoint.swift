// SPDX-License-Identifier: Apache-2.0

private import Cluster
private import KeyValue
private import NIOCore

/// `POST /keys:batch`: many pairs in one request, each answered by itself.
extension HTTPFrontHandler {
    func performBatch(_ request: FrontRequest, _ id: RequestID) {
        let reads: Consistency?
        let writes: Consistency?
        switch (wantedConsistency(request, isWrite: false), wantedConsistency(request, isWrite: true)) {
        case (.success(let found), .success(let other)): (reads, writes) = (found, other)
        case (.failure(let refusal), _), (_, .failure(let refusal)): return complete(id, refusal.answer)
        }
        if front.data.standing == .none { return complete(id, ErrorAnswer.noRing) }
        let body = request.body
        let loop = front.loop
        let connection = NIOLoopBound(self, eventLoop: loop)
        // (JSON of some megabytes takes longer than a loop may be kept.)
        handOver(id, .batch) {
            let batch: BatchRequest
            do throws(BatchRequest.Malformed) {
                batch = try BatchRequest(json: body)
            } catch {
                return ErrorAnswer.badBatchRequest(error.reason)
            }
            guard (1...Limits.clientBatchOperations).contains(batch.operations.count) else {
                return ErrorAnswer.badBatchSize
            }
            let operations = batch.operations.map(\.checked)
            let keys = operations.compactMap { try? $0.get().key }
            guard Set(keys).count == keys.count else { return ErrorAnswer.keyTwiceInBatch }
            let answers = try? await loop.flatSubmit {
                connection.value.answers(to: operations, reads: reads, writes: writes)
            }.get()
            return answers.map { .json(BatchResult.json($0.map(BatchResult.init))) } ?? ErrorAnswer.leaving
        }
    }

    /// Does all at the same time; the answers are in the operations' order.
    private func answers(
        to operations: [Result<CheckedOperation, BatchRequest.Operation.Refusal>], reads: Consistency?,
        writes: Consistency?
    ) -> EventLoopFuture<[Answer]> {
        var bytes = 0
        let promises = operations.map { operation in
            let promise = front.loop.makePromise(of: Answer.self)
            let done = { (answer: Answer) in
                // A value that has no room is not kept until all have come.
                bytes += answer.body.readableBytes
                let hasRoom = bytes <= Limits.clientBatchBytes || answer.status != .ok
                promise.succeed(hasRoom ? answer : ErrorAnswer.batchAnswerTooLarge)
            }
            switch operation {
            case .success(let operation): perform(operation, reads: reads, writes: writes, completion: done)
            case .failure(let refusal): done(refusal.answer)
            }
            return promise
        }
        return EventLoopFuture.whenAllSucceed(promises.map(\.futureResult), on: front.loop)
    }

    private func perform(
        _ operation: CheckedOperation, reads: Consistency?, writes: Consistency?,
        completion: @escaping (Answer) -> Void
    ) {
        switch operation.action {
        case .get:
            front.data.read(operation.key, reads) { result in
                completion(self.answerOfRead(result, if: operation.precondition) { .representation(of: $0) })
            }
        case .put(let value, let contentType, let timeToLive):
            let expiry = timeToLive.map { self.front.data.wallMilliseconds + UInt64($0) * 1000 }
            switch newPair(operation.key, value, contentType: contentType, expiry: expiry) {
            case .success(let (key, envelope)):
                write(key, envelope, operation.precondition, writes, completion)
            case .failure(let refusal): completion(refusal.answer)
            }
        case .delete:
            let (key, tombstone) = deletion(of: operation.key, isConditional: !operation.precondition.isEmpty)
            write(key, tombstone, operation.precondition, writes, completion)
        }
    }

    private func write(
        _ key: StoredKey, _ envelope: Envelope, _ precondition: Precondition, _ consistency: Consistency?,
        _ completion: @escaping (Answer) -> Void
    ) {
        let written = { (result: Result<Version, OperationFailure>) in
            switch result {
            case .success(let version): completion(.done(version))
            case .failure(let failure): completion(self.answer(to: failure))
            }
        }
        if precondition.isEmpty {
            front.data.write(key, envelope, consistency, completion: written)
        } else {
            front.data.write(key, envelope, if: precondition, consistency, completion: written)
        }
    }
}
