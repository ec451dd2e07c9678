// SPDX-License-Identifier: Apache-2.0

private import HashRing
package import KeyValue
package import NIOCore

/// Reads the chunks of a large value in their order, some ahead of whoever takes them (docs/large-values.md). Belongs
/// to one event loop.
package final class LargeRead {
    package enum Failure: Error, Hashable {
        /// The manifest that named it is of an older pair by now, or came from a replica that is behind.
        case missing
        case failed(OperationFailure)
    }

    /// Reads what is stored under a key; strictly, where it is told so.
    package typealias Fetch = (
        StoredKey, _ isStrict: Bool, _ completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) -> Void

    private let value: LargeValue
    private let slot: Slot
    private let range: Range<Int>
    private let last: Int
    private let fetch: Fetch
    private var next: Int
    /// Of the next piece to be given away.
    private var first: Int
    private var arrived: [Int: ByteBuffer] = [:]
    private var failure: Failure?
    private var taker: ((Result<ByteBuffer?, Failure>) -> Void)?
    private var isFetching = false
    private var isAbandoned = false

    /// - Parameter range: of the value's bytes.
    package init(_ value: LargeValue, _ range: Range<Int>, of key: Key, fetch: @escaping Fetch) {
        self.value = value
        self.slot = key.slot
        self.range = range
        self.fetch = fetch
        let chunks = range.isEmpty ? 1...1 : value.chunks(of: range)
        self.next = chunks.lowerBound
        self.first = chunks.lowerBound
        self.last = range.isEmpty ? 0 : chunks.upperBound
    }

    /// Bytes that may wait here, or be under way.
    package var heldBytes: Int { min(Limits.chunkWindow, last - first + 1) * value.chunkBytes }

    /// The next piece; nil behind the last one. One at a time.
    package func take(_ completion: @escaping (Result<ByteBuffer?, Failure>) -> Void) {
        taker = completion
        give()
        fetchAhead()
    }

    package func abandon() {
        isAbandoned = true
        taker = nil
        arrived = [:]
    }

    private func give() {
        guard let taker else { return }
        if let piece = arrived.removeValue(forKey: first) {
            first += 1
            self.taker = nil
            taker(.success(piece))
        } else if let failure {
            self.taker = nil
            taker(.failure(failure))
        } else if first > last {
            self.taker = nil
            taker(.success(nil))
        }
    }

    private func fetchAhead() {
        // (What completes at once comes back here.)
        guard !isFetching else { return }
        isFetching = true
        while !isAbandoned, failure == nil, next <= last, next - first < Limits.chunkWindow {
            let number = next
            next += 1
            fetch(number, isStrict: false)
        }
        isFetching = false
    }

    private func fetch(_ number: Int, isStrict: Bool) {
        fetch(StoredKey(chunk: number, of: value.upload, in: slot), isStrict) { result in
            guard !self.isAbandoned else { return }
            switch result {
            case .success(let chunk?) where !chunk.isTombstone && self.isWhole(chunk, number):
                self.arrived[number] = self.wantedPart(of: chunk.value, number)
            // (Another replica may have it.)
            case .success where !isStrict: return self.fetch(number, isStrict: true)
            case .success: self.failure = self.failure ?? .missing
            case .failure(let failure): self.failure = self.failure ?? .failed(failure)
            }
            self.give()
            self.fetchAhead()
        }
    }

    private func isWhole(_ chunk: Envelope, _ number: Int) -> Bool {
        chunk.value.readableBytes == value.bytes(ofChunk: number).count
    }

    private func wantedPart(of piece: ByteBuffer, _ number: Int) -> ByteBuffer? {
        let bytes = value.bytes(ofChunk: number)
        let wanted = bytes.clamped(to: range)
        return piece.getSlice(at: piece.readerIndex + wanted.lowerBound - bytes.lowerBound, length: wanted.count)
    }
}
