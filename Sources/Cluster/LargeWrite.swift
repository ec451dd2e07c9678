// SPDX-License-Identifier: Apache-2.0

private import DequeModule
package import KeyValue
package import NIOCore
package import RequestTracing

/// A value over memcached's item limit while it arrives: written in chunks, and named by a manifest at last
/// (docs/large-values.md). Belongs to one event loop.
///
/// Nothing that anybody reads is changed before `finish`: whatever fails until then has not been applied.
package final class LargeWrite {
    /// What is written once all chunks are there.
    package struct Pair {
        let key: Key
        let contentType: String?
        /// In milliseconds since 1970.
        let expiry: UInt64?
        /// At least strict.
        let consistency: Consistency

        package init(key: Key, contentType: String?, expiry: UInt64?, consistency: Consistency) {
            self.key = key
            self.contentType = contentType
            self.expiry = expiry
            self.consistency = consistency
        }
    }

    private enum State {
        case open
        /// All has arrived; what to do once it is stored.
        case finishing(Precondition, completion: (Result<Version, OperationFailure>) -> Void)
        case over
    }

    private let store: any PairStore
    private let loop: any EventLoop
    private let pair: Pair
    private let upload = UploadID.random()
    private let chunkBytes: Int
    /// After it nothing is acknowledged any more.
    private let end: NIODeadline
    /// For whom it is done.
    private let asker: RequestTrace?

    private var state = State.open
    /// Bytes that make no chunk yet.
    private var rest = ByteBuffer()
    private var chunks = Deque<ByteBuffer>()
    private var chunkCount = 0
    private var underWay = 0
    private var isSending = false

    /// Bytes that were taken.
    package private(set) var length = 0
    /// Why it can't be stored.
    package private(set) var failure: OperationFailure?
    /// Called when there is room for more, and when it has failed.
    package var onNews: () -> Void = {}

    /// - Parameter time: how long all of it may take.
    package init(
        _ store: any PairStore, on loop: any EventLoop, _ pair: Pair, within time: TimeAmount, for asker: RequestTrace?
    ) {
        self.store = store
        self.loop = loop
        self.pair = pair
        self.asker = asker
        self.end = .now() + time
        let label = StoredKey(chunk: 0, of: upload, in: pair.key.slot)
        // (A number takes some more digits.)
        self.chunkBytes = max(1, min(Limits.chunkBytes, store.valueLimit(for: label, of: pair.key) - 8))
        chunks.append(ByteBuffer())
    }

    /// Whether no more should be read for now.
    package var isFull: Bool { underWay + chunks.count > Limits.chunkWindow }

    /// Whether its time is up.
    package func isLate(_ now: NIODeadline) -> Bool { now > end }

    /// Bytes that may wait here, or be under way.
    package var heldBytes: Int { (Limits.chunkWindow + 2) * chunkBytes }

    /// Takes the next bytes of the value.
    package func append(_ bytes: ByteBuffer) {
        guard case .open = state, failure == nil else { return }
        length += bytes.readableBytes
        rest.writeImmutableBuffer(bytes)
        while rest.readableBytes >= chunkBytes, let piece = rest.readSlice(length: chunkBytes) { chunks.append(piece) }
        rest.discardReadBytes()
        send()
    }

    /// The value is whole: writes the manifest once all chunks are stored.
    /// - Parameter completion: called once.
    package func finish(
        if precondition: Precondition, completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        guard case .open = state else { return completion(.failure(.notApplied(.protocolViolation))) }
        if rest.readableBytes > 0 { chunks.append(rest) }
        rest = ByteBuffer()
        state = .finishing(precondition, completion: completion)
        send()
        endIfStored()
    }

    /// Nobody wants it any more. What was stored of it is collected later.
    package func abandon() {
        state = .over
        chunks.removeAll()
        rest = ByteBuffer()
        onNews = {}
    }

    private func send() {
        // (What completes at once comes back here.)
        guard !isSending else { return }
        isSending = true
        while failure == nil, underWay < Limits.chunkWindow, let piece = chunks.popFirst() {
            let key = StoredKey(chunk: chunkCount, of: upload, in: pair.key.slot)
            chunkCount += 1
            underWay += 1
            store.asking(for: asker) {
                store.write(key, Envelope(key: pair.key, storedKey: key, value: piece), pair.consistency) {
                    self.stored($0)
                }
            }
        }
        isSending = false
    }

    private func stored(_ result: Result<Version, OperationFailure>) {
        underWay -= 1
        // (Whether a chunk is there is nobody's matter without a manifest.)
        if case .failure(let failure) = result { fail(failure.asNotApplied) }
        send()
        onNews()
        endIfStored()
    }

    private func fail(_ failure: OperationFailure) {
        if self.failure == nil { self.failure = failure }
        chunks.removeAll()
        rest = ByteBuffer()
    }

    private func endIfStored() {
        guard case .finishing(let precondition, let completion) = state, underWay == 0 else { return }
        if failure == nil, NIODeadline.now() > end { fail(.notApplied(.deadline)) }
        if let failure {
            state = .over
            return completion(.failure(failure))
        }
        guard chunks.isEmpty else { return }
        state = .over
        let key = StoredKey(pair.key)
        let manifest = Envelope(
            key: pair.key, storedKey: key,
            manifest: LargeValue(upload: upload, length: length, chunkBytes: chunkBytes),
            contentType: pair.contentType, expiryMilliseconds: pair.expiry)
        let end = end
        let conclude = { (result: Result<Version, OperationFailure>) in
            // (Its chunks may have been collected by somebody who took them for left over.)
            let isLate = NIODeadline.now() > end
            completion(isLate ? result.flatMap { _ in .failure(.outcomeUnknown(.deadline)) } : result)
        }
        store.asking(for: asker) {
            if precondition.isEmpty {
                store.write(key, manifest, pair.consistency, completion: conclude)
            } else {
                store.write(key, manifest, if: precondition, pair.consistency, completion: conclude)
            }
        }
    }
}
