// SPDX-License-Identifier: Apache-2.0

package import KeyValue
private import NIOCore

/// Records that come with their versions, from a backup.
extension Coordinator {
    /// Sees to it that a majority of the key's group holds this record, or a newer one.
    /// - Parameter completion: told whether this one was stored; not where the pair was as new already.
    package func restore(
        _ key: StoredKey, _ record: Envelope, completion: @escaping (Result<Bool, OperationFailure>) -> Void
    ) {
        let deadline = NIODeadline.now() + requestTime
        ReadRun(
            coordinator: self, slot: key.slot, key: key, consistency: Consistency(.strict), deadline: deadline,
            trace: nil
        ) { result in
            switch result {
            case .failure(let failure): completion(.failure(failure))
            case .success(let held?) where held.version >= record.version: completion(.success(false))
            case .success:
                WriteRun(self, key, restoring: record, deadline: deadline) { completion($0.map { _ in true }) }.begin()
            }
        }.begin()
    }
}
