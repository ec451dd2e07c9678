// SPDX-License-Identifier: Apache-2.0

/// What is asked of etcd. None is retried for longer than `time`.
package protocol EtcdCalls: Sendable {
    func transact(_ transaction: EtcdTransaction, within time: Duration) async throws(EtcdError)
        -> EtcdTransactionAnswer
    /// - Returns: the new lease.
    func grantLease(seconds: Int64, within time: Duration) async throws(EtcdError) -> Int64
    /// - Returns: false where it has run out.
    func keepAlive(lease: Int64, within time: Duration) async throws(EtcdError) -> Bool
    /// Ends it, and the keys that are bound to it.
    func revoke(lease: Int64, within time: Duration) async throws(EtcdError)
}
