// SPDX-License-Identifier: Apache-2.0

internal import Cluster
internal import KeyValue
internal import NIOCore

/// A body that is stored while it is being received. What it holds counts for the front's bound as long as it is
/// wanted.
package final class Upload {
    let write: LargeWrite
    private let front: Front

    fileprivate init(_ write: LargeWrite, _ front: Front) {
        self.write = write
        self.front = front
        front.hold(write.heldBytes)
    }

    deinit {
        front.hold(-write.heldBytes)
        write.abandon()
    }
}

/// Values over memcached's item limit (docs/large-values.md).
extension HTTPFrontHandler {
    /// The largest body that is stored in chunks.
    private func largestBody(of request: FrontRequest) -> Int? {
        request.route == .key && request.method == .put ? Limits.valueBytes : nil
    }

    /// Begins to store a body that is over the limit of what is kept until its end.
    /// - Parameter bytes: how long it is at least.
    func upload(
        _ request: FrontRequest, _ trait: RequestTrait, bytes: Int, over limit: Int
    ) -> Result<Upload, Refusal> {
        guard let most = largestBody(of: request) else {
            return .failure(Refusal(answer: ErrorAnswer.bodyTooLarge(limit)))
        }
        guard bytes <= most else { return .failure(Refusal(answer: ErrorAnswer.bodyTooLarge(most))) }
        if front.isFull { return .failure(Refusal(answer: ErrorAnswer.overloaded)) }
        if front.data.standing == .none { return .failure(Refusal(answer: ErrorAnswer.noRing)) }
        return namedKey(request).flatMap { key in
            expiry(request.withQuery { FormDecoder.bytes("ttl", in: $0, limit: 16) }).flatMap { expiry in
                wantedConsistency(request, isWrite: true).map { consistency in
                    let write = LargeWrite(
                        front.data, on: front.loop,
                        LargeWrite.Pair(
                            key: key, contentType: request.representation.storedContentType, expiry: expiry,
                            consistency: front.data.consistency(.strict, quorum: consistency?.quorum, isWrite: true)),
                        within: front.uploadTime, for: trait.trace)
                    let upload = Upload(write, front)
                    write.onNews = { [weak self, weak upload] in
                        guard let self, let upload, receiving.upload === upload else { return }
                        if write.failure == nil { resumeReading() } else { giveUp(upload, trait) }
                    }
                    return upload
                }
            }
        }
    }

    func received(into upload: Upload, _ part: ByteBuffer, _ trait: RequestTrait) {
        guard upload.write.length + part.readableBytes <= Limits.valueBytes else {
            return answerEarly(ErrorAnswer.bodyTooLarge(Limits.valueBytes), trait)
        }
        upload.write.append(part)
    }

    /// Answers before the body's end.
    private func giveUp(_ upload: Upload, _ trait: RequestTrait) {
        guard let failure = upload.write.failure else { return }
        answerEarly(answer(to: failure), trait)
        resumeReading()
    }

    /// The body is whole, and it is the request's turn.
    func finish(_ upload: Upload, _ request: FrontRequest, _ id: RequestID) {
        if let key = try? namedKey(request).get() { queue.note(slot: key.slot, of: id) }
        performing(request, id) { completion in
            upload.write.finish(if: request.precondition) { result in
                // (It is wanted until now.)
                withExtendedLifetime(upload) { completion(result) }
            }
        }
    }

    /// Answers with a value that is read as it is sent.
    /// - Parameter tries: how often it has been looked for.
    func stream(
        _ answer: Answer, of key: Key, _ request: FrontRequest, _ id: RequestID, here: Bool, tries: Int
    ) {
        guard let large = answer.large else { return complete(id, answer) }
        guard large.range.count > 0 else { return complete(id, answer) }
        // (Of many requests that began together, the first ones may have taken all the room.)
        if front.isFull { return complete(id, ErrorAnswer.overloaded) }
        let consistency = (try? wantedConsistency(request, isWrite: false).get()) ?? nil
        let data = front.data
        let trace = queue.trace(of: id)
        let read = LargeRead(large.value, large.range, of: key) { chunk, isStrict, completion in
            data.asking(for: trace) {
                if here {
                    data.readHere(chunk, completion: completion)
                } else {
                    data.read(stored: chunk, isStrict ? .strict : consistency, completion: completion)
                }
            }
        }
        ValueStream(self, read, answer, id).run { failure in
            switch failure {
            case .missing where tries < ValueStream.tries && !here:
                self.read(key, request, id, here: here, tries: tries + 1)
            case .missing: self.complete(id, ErrorAnswer.chunksMissing)
            case .failed(let failure): self.complete(id, self.answer(to: failure))
            }
        }
    }
}

/// From the chunks of a value to its answer. Belongs to the connection's event loop.
private final class ValueStream {
    /// How often a pair is read whose chunks are not there.
    static let tries = 3

    private let connection: HTTPFrontHandler
    private let front: Front
    private let read: LargeRead
    private let answer: Answer
    private let id: HTTPFrontHandler.RequestID
    private let heldBytes: Int
    private var hasBegun = false

    init(_ connection: HTTPFrontHandler, _ read: LargeRead, _ answer: Answer, _ id: HTTPFrontHandler.RequestID) {
        self.connection = connection
        self.front = connection.front
        self.read = read
        self.answer = answer
        self.id = id
        self.heldBytes = read.heldBytes
        front.hold(heldBytes)
    }

    deinit {
        front.hold(-heldBytes)
        read.abandon()
    }

    /// - Parameter fail: called instead of an answer that has begun.
    func run(_ fail: @escaping (LargeRead.Failure) -> Void) {
        read.take { result in
            switch result {
            case .success(let piece?): self.push(piece, fail)
            case .success(nil): self.connection.finishStream(self.id, .success(""))
            case .failure(let failure):
                if self.hasBegun { self.connection.finishStream(self.id, .failure(failure)) } else { fail(failure) }
            }
        }
    }

    private func push(_ piece: ByteBuffer, _ fail: @escaping (LargeRead.Failure) -> Void) {
        guard connection.queue.contains(id) else { return }
        if !hasBegun {
            hasBegun = true
            connection.streams[id] = AnswerStream(.value(answer))
        }
        let taken = front.loop.makePromise(of: Void.self)
        taken.futureResult.assumeIsolated().whenComplete { result in
            if case .success = result { self.run(fail) }
        }
        connection.push(piece, to: id, taken: taken)
    }
}
