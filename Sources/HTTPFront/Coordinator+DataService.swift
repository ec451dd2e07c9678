// SPDX-License-Identifier: Apache-2.0

package import Cluster
package import HashRing
package import KeyValue

extension Coordinator: DataService {
    package var standing: RingStanding {
        guard let view else { return .unconfirmed }
        return view.table == nil ? .none : .present
    }

    package var document: RingDocument? { view?.document }

    package func consistency(_ level: Consistency.Level?, quorum: Int?, isWrite: Bool) -> Consistency {
        var consistency = isWrite ? defaults.writes : defaults.reads
        if let level { consistency.level = level }
        if let quorum { consistency.quorum = quorum }
        return consistency
    }

    package func holders(of key: Key) -> [NodeID]? {
        guard let table = view?.table else { return nil }
        return table[key.slot].reads.first?.members
    }
}
