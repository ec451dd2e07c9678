// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue

/// What the hosts have listed of one part, put together (docs/listing.md): each key once, in its newest record.
package struct ListingMerge: Sendable {
    /// Live pairs, in the keys' order.
    package let pairs: [ListedPair]
    /// The listing is complete up to here.
    package let through: ListingMark

    /// Nil where some slot's group has no quorum among those who have answered.
    /// - Parameters:
    ///   - limit: pairs, at most.
    ///   - now: the wall clock, in milliseconds since 1970.
    package init?(
        _ listings: [NodeID: HostListing], under table: RoutingTable, limit: Int, atMilliseconds now: UInt64
    ) {
        let hasQuorum = table.placements.allSatisfy { placement in
            placement.reads.allSatisfy { group in
                group.members.count { listings[$0] != nil } >= group.quorum
            }
        }
        guard hasQuorum else { return nil }
        var through = listings.values.map(\.through).min() ?? .end
        var places = listings.values.map { (pairs: $0.pairs, index: 0) }
        var merged: [ListedPair] = []
        while true {
            var newest: ListedPair?
            for place in places where place.index < place.pairs.count {
                let pair = place.pairs[place.index]
                guard let other = newest else {
                    newest = pair
                    continue
                }
                if pair.key < other.key || pair.key == other.key && pair.record.version > other.record.version {
                    newest = pair
                }
            }
            guard let newest, ListingMark(through: newest.key) <= through else { break }
            for index in places.indices {
                let place = places[index]
                if place.index < place.pairs.count, place.pairs[place.index].key == newest.key {
                    places[index].index += 1
                }
            }
            if newest.record.isGone(atMilliseconds: now) { continue }
            merged.append(newest)
            // (Each host gave as many.)
            if merged.count == limit {
                through = ListingMark(through: newest.key)
                break
            }
        }
        self.pairs = merged
        self.through = through
    }
}
