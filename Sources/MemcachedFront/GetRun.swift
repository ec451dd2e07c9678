// SPDX-License-Identifier: Apache-2.0

private import DequeModule
internal import KeyValue
internal import NIOCore

/// One get of one key or many: asks for a window of them at once, which the coordinator batches, and gives their
/// answers out in the order of the keys.
final class GetRun {
    typealias Found = Result<(pair: Envelope, version: Version)?, OperationFailure>

    private let keys: [Key]
    private let withCas: Bool
    /// May answer before it returns.
    private let fetch: (Key, @escaping (Found) -> Void) -> Void
    // (`unchecked`: see `CommandHandler`.)

    /// The answers from `first` on; nil: asked and not answered.
    @exclusivity(unchecked) private var window = Deque<Found?>()
    @exclusivity(unchecked) private var first = 0
    @exclusivity(unchecked) private var isAbandoned = false
    @exclusivity(unchecked) private(set) var hasHit = false
    /// The value that is being given out in pieces.
    var stream: ValueStream?
    /// What its keys take until it is done.
    let heldBytes: Int

    init(
        _ keys: [Key], withCas: Bool, heldBytes: Int = 0, fetch: @escaping (Key, @escaping (Found) -> Void) -> Void
    ) {
        self.keys = keys
        self.heldBytes = heldBytes
        self.withCas = withCas
        self.fetch = fetch
    }

    /// Nobody waits for it any more.
    func abandon() { isAbandoned = true }

    /// Asks for more, up to so many ahead of what was given out.
    /// - Parameter received: called for each answer, with the bytes that it makes the worker keep until it is taken.
    func ask(_ count: Int, received: @escaping (_ bytes: Int) -> Void) {
        while window.count < count, first + window.count < keys.count, !isAbandoned {
            let index = first + window.count
            window.append(nil)
            fetch(keys[index]) { found in
                guard !self.isAbandoned else { return }
                self.window[index - self.first] = .some(found)
                received(GetRun.bytes(found))
            }
        }
    }

    enum Next {
        /// Not here yet.
        case wait
        /// Nothing to say of this key.
        case none
        /// - Parameter bytes: that are not kept any more.
        case value(Reply, bytes: Int)
        /// The same of a value in chunks, which is yet to be read.
        case large(LargeValue, Key, Reply, bytes: Int)
        /// The rest is not told, and not kept.
        case failure(OperationFailure, bytes: Int)
        case end
    }

    /// Takes the next key's answer.
    func next() -> Next {
        guard first < keys.count else { return .end }
        guard let answer = window.first, let found = answer else { return .wait }
        window.removeFirst()
        let key = keys[first]
        first += 1
        switch found {
        case .success((let pair, let version)?):
            hasHit = true
            let reply = Reply.value(pair, of: key, cas: withCas ? version.casUnique : nil)
            guard let large = pair.largeValue else { return .value(reply, bytes: GetRun.bytes(found)) }
            return .large(large, key, reply, bytes: GetRun.bytes(found))
        case .success(nil): return .none
        case .failure(let failure):
            return giveUp(failure)
        }
    }

    /// Ends it before its last key.
    func giveUp(_ failure: OperationFailure) -> Next {
        abandon()
        return .failure(failure, bytes: window.reduce(0) { $0 + ($1.map(GetRun.bytes) ?? 0) })
    }

    private static func bytes(_ found: Found) -> Int {
        if case .success((let pair, _)?) = found { pair.buffer.readableBytes } else { 0 }
    }
}
