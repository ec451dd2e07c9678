// SPDX-License-Identifier: Apache-2.0

package import Cluster
package import KeyValue

/// A store of one process's dictionary, whose conditional writes decide by what that holds.
package protocol DictionaryStore: PairStore {
    func held(_ key: StoredKey) -> Envelope?
}

extension DictionaryStore {
    package func write(
        _ key: StoredKey, _ envelope: Envelope, if precondition: Precondition, _ consistency: Consistency?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        let held = held(key)
        guard precondition.verdict(on: held, atMilliseconds: wallMilliseconds) == .met else {
            return completion(.failure(.preconditionFailed(held: held?.version ?? .none)))
        }
        write(key, envelope, consistency, completion: completion)
    }
}
