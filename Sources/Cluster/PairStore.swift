// SPDX-License-Identifier: Apache-2.0

package import KeyValue
package import RequestTracing

/// The store as its fronts see it: pairs by key, wherever they are; on the event loop, without `await`. Completions
/// come on the same loop, exactly once, within the request's deadline, and may come before the call returns.
package protocol PairStore: AnyObject {
    /// For whom the operations are that begin now; see `asking(for:)`.
    var asker: RequestTrace? { get set }
    /// The wall clock, in milliseconds since 1970.
    var wallMilliseconds: UInt64 { get }
    /// memcached's item size limit in bytes: a larger value takes several (`LargeWrite`).
    var itemBytes: Int { get }
    /// The largest value in bytes that this node's memcached takes for the key, less what goes beside it (content type,
    /// client flags).
    func valueLimit(for storedKey: StoredKey, of key: Key) -> Int

    /// The newest pair, wherever it is; nil where there is none (a tombstone counts as none).
    /// - Parameter consistency: what the request wants; nil: what the node gives by default.
    func read(
        _ key: Key, _ consistency: Consistency?, completion: @escaping (Result<Envelope?, OperationFailure>) -> Void)
    /// The same of what is stored under such a key.
    func read(
        stored key: StoredKey, _ consistency: Consistency?,
        completion: @escaping (Result<Envelope?, OperationFailure>) -> Void)
    /// Stores the pair at its holders; the envelope comes without a version and is stamped by the store.
    func write(
        _ key: StoredKey, _ envelope: Envelope, _ consistency: Consistency?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void)
    /// The same where the pair is as the condition wants it; otherwise `preconditionFailed`.
    func write(
        _ key: StoredKey, _ envelope: Envelope, if precondition: Precondition, _ consistency: Consistency?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void)
}

extension PairStore {
    /// Lets what begins meanwhile count as this request's, on whichever nodes it is done.
    package func asking(for trace: RequestTrace?, _ body: () -> Void) {
        // (What is answered at once may let the next request begin in here.)
        let outer = asker
        asker = trace
        body()
        asker = outer
    }
}

extension Coordinator: PairStore {
    package func valueLimit(for storedKey: StoredKey, of key: Key) -> Int {
        // The stored key itself is part of the item's overhead; a long one's client key is in the envelope, with its
        // length.
        let inside = Envelope.longestHeaderBytes + (storedKey.isDigest || storedKey.isChunk ? 2 + key.bytes.count : 0)
        return max(0, itemBytes - Limits.itemOverheadBytes - inside)
    }
}
