// SPDX-License-Identifier: Apache-2.0

import Etcd
import FoundationEssentials

/// What etcd promises, in memory: transactions, leases, revisions; and what a network does to requests.
actor FakeEtcd: EtcdCalls {
    enum Fault: CaseIterable {
        /// The request never arrives.
        case requestLost
        /// It is done, and nobody hears of it.
        case answerLost
        /// It is done later.
        case late
    }

    private struct Entry {
        let value: Data
        let modRevision: Int64
        let lease: Int64?
    }

    private static let lost = EtcdError.unreachable(reason: "injected", mayBeDone: true)

    private var entries: [String: Entry] = [:]
    private var revision: Int64 = 1
    private var leases: Set<Int64> = []
    private var lastLease: Int64 = 0
    private var late: [EtcdTransaction] = []
    /// What becomes of the next transactions, the last one first.
    var faults: [Fault?] = []
    /// All that was ever put under the key.
    private(set) var history: [String: [Data]] = [:]

    func inject(_ faults: [Fault?]) { self.faults = faults }

    /// Lets the leases run out.
    func expire() { for lease in leases { end(lease) } }

    /// What was under way arrives.
    func deliver() {
        let late = late
        self.late = []
        for transaction in late { _ = try? apply(transaction) }
    }

    func value(_ key: String) -> Data? { entries[key]?.value }

    /// As an operator's `etcdctl put`, or a copy that is set back.
    func set(_ key: String, _ value: Data?) {
        revision += 1
        entries[key] = value.map { Entry(value: $0, modRevision: revision, lease: nil) }
    }

    func transact(
        _ transaction: EtcdTransaction, within time: Duration
    ) async throws(EtcdError) -> EtcdTransactionAnswer {
        switch faults.popLast() ?? nil {
        case nil: return try apply(transaction)
        case .requestLost: throw FakeEtcd.lost
        case .late:
            late.append(transaction)
            throw FakeEtcd.lost
        case .answerLost:
            _ = try apply(transaction)
            throw FakeEtcd.lost
        }
    }

    func grantLease(seconds: Int64, within time: Duration) async throws(EtcdError) -> Int64 {
        lastLease += 1
        leases.insert(lastLease)
        return lastLease
    }

    func keepAlive(lease: Int64, within time: Duration) async throws(EtcdError) -> Bool { leases.contains(lease) }

    func revoke(lease: Int64, within time: Duration) async throws(EtcdError) {
        guard leases.contains(lease) else { throw .refused("requested lease not found") }
        end(lease)
    }

    private func end(_ lease: Int64) {
        leases.remove(lease)
        revision += 1
        entries = entries.filter { $0.value.lease != lease }
    }

    private func apply(_ transaction: EtcdTransaction) throws(EtcdError) -> EtcdTransactionAnswer {
        let succeeded = transaction.conditions.allSatisfy { condition in
            switch condition {
            case .isAbsent(let key): entries[key] == nil
            case .holds(let key, let value): entries[key]?.value == value
            case .wasChangedLast(let key, let revision): entries[key]?.modRevision ?? 0 == revision
            }
        }
        let operations = succeeded ? transaction.success : transaction.failure
        var next = revision
        for case .put(_, _, let lease?) in operations where !leases.contains(lease) {
            throw .refused("requested lease not found")
        }
        var pairs: [EtcdPair] = []
        for operation in operations {
            switch operation {
            case .get(let key):
                if let entry = entries[key] {
                    pairs.append(EtcdPair(key: key, value: entry.value, modRevision: entry.modRevision))
                }
            case .put(let key, let value, let lease):
                next = revision + 1
                entries[key] = Entry(value: value, modRevision: next, lease: lease)
                history[key, default: []].append(value)
            }
        }
        revision = next
        return EtcdTransactionAnswer(succeeded: succeeded, revision: revision, pairs: pairs)
    }
}
