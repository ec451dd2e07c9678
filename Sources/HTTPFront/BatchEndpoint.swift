// SPDX-License-Identifier: Apache-2.0

private import Cluster
private import KeyValue
private import NIOCore
private import RequestTracing

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
        // Body, operations and answers, until the batch is done.
        let held = 2 * body.readableBytes
        front.hold(held)
        // (JSON of some megabytes takes longer than a loop may be kept.)
        let isTaken = handOver(id, .batch) {
            defer { loop.execute { connection.value.front.hold(-held) } }
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
                let answers = loop.makePromise(of: [Answer].self)
                ClientBatchRun(
                    connection.value, operations, reads: reads, writes: writes,
                    asker: connection.value.queue.trace(of: id)
                ) { answers.succeed($0) }.begin()
                return answers.futureResult
            }.get()
            return answers.map { .json(BatchResult.json($0.map(BatchResult.init))) } ?? ErrorAnswer.leaving
        }
        if !isTaken { front.hold(-held) }
    }
}

/// A client's batch while it is being done: some operations at a time, so that the values that are on their way to it
/// have a bound. Belongs to the front's event loop.
private final class ClientBatchRun {
    private let connection: HTTPFrontHandler
    private let operations: [Result<CheckedOperation, Refusal>]
    private let reads: Consistency?
    private let writes: Consistency?
    /// For whom all of it is done.
    private let asker: RequestTrace?
    private let completion: ([Answer]) -> Void
    private var answers: [Answer?]
    private var next = 0
    private var underWay = 0
    private var isBeginning = false
    /// Of the answers that are here.
    private var bytes = 0
    /// After this nothing more is begun.
    private let end: NIODeadline

    /// Values of so many operations fit into an answer from another node (`Limits.peerBodyBytes`) several times.
    private static let window = 16
    /// Well within the time that a balancer waits.
    private static let patience = TimeAmount.milliseconds(900)

    /// - Parameter completion: called once, with the answers in the operations' order.
    init(
        _ connection: HTTPFrontHandler, _ operations: [Result<CheckedOperation, Refusal>], reads: Consistency?,
        writes: Consistency?, asker: RequestTrace?, completion: @escaping ([Answer]) -> Void
    ) {
        self.connection = connection
        self.operations = operations
        self.reads = reads
        self.writes = writes
        self.asker = asker
        self.completion = completion
        self.answers = Array(repeating: nil, count: operations.count)
        self.end = connection.front.loop.now + ClientBatchRun.patience
    }

    func begin() {
        // (What completes at once comes back here.)
        guard !isBeginning else { return }
        isBeginning = true
        while next < operations.count, underWay < ClientBatchRun.window {
            let index = next
            next += 1
            underWay += 1
            begin(index)
        }
        isBeginning = false
        if underWay == 0, next == operations.count { completion(answers.compactMap { $0 }) }
    }

    private func begin(_ index: Int) {
        switch operations[index] {
        case .failure(let refusal): done(index, refusal.answer)
        case .success(let operation):
            if connection.front.loop.now >= end {
                done(index, connection.answer(to: .notApplied(.deadline)))
            } else if case .get = operation.action, bytes > Limits.clientBatchBytes {
                done(index, ErrorAnswer.batchAnswerTooLarge)
            } else {
                connection.front.data.asking(for: asker) { perform(operation) { self.done(index, $0) } }
            }
        }
    }

    private func done(_ index: Int, _ answer: Answer) {
        underWay -= 1
        bytes += answer.body.readableBytes
        let hasRoom = bytes <= Limits.clientBatchBytes || answer.status != .ok
        answers[index] = hasRoom ? answer : ErrorAnswer.batchAnswerTooLarge
        begin()
    }

    private func perform(_ operation: CheckedOperation, completion: @escaping (Answer) -> Void) {
        let data = connection.front.data
        switch operation.action {
        case .get:
            data.read(operation.key, reads) { result in
                completion(
                    self.connection.answerOfRead(result, if: operation.precondition) { pair in
                        pair.isManifest ? ErrorAnswer.largeInBatch : .representation(of: pair)
                    })
            }
        case .put(let value, let contentType, let timeToLive):
            let expiry = timeToLive.map { data.wallMilliseconds + UInt64($0) * 1000 }
            switch connection.newPair(operation.key, value, contentType: contentType, expiry: expiry) {
            case .success(let (key, envelope)): write(key, envelope, operation.precondition, completion)
            case .failure(let refusal): completion(refusal.answer)
            }
        case .delete:
            let (key, tombstone) = connection.deletion(
                of: operation.key, isConditional: !operation.precondition.isEmpty)
            write(key, tombstone, operation.precondition, completion)
        }
    }

    private func write(
        _ key: StoredKey, _ envelope: Envelope, _ precondition: Precondition, _ completion: @escaping (Answer) -> Void
    ) {
        connection.write(key, envelope, if: precondition, writes) { result in
            switch result {
            case .success(let version): completion(.done(version))
            case .failure(let failure): completion(self.connection.answer(to: failure))
            }
        }
    }
}
