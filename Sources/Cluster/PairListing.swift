// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue
package import Memcached
internal import NIOCore

/// All pairs of the ring, a part at a time, from whichever hosts hold them (docs/listing.md).
package struct PairListing: Sendable {
    /// What is wanted.
    package struct Query: Sendable {
        package var after: ListingMark
        /// Of the clients' keys.
        package var prefix: [UInt8]
        /// Pairs, at most.
        package var limit: Int
        /// Whether with their values.
        package var isWhole: Bool

        package init(after: ListingMark = .start, prefix: [UInt8] = [], limit: Int, isWhole: Bool = false) {
            self.after = after
            self.prefix = prefix
            self.limit = limit
            self.isWhole = isWhole
        }
    }

    /// Why there is no part.
    package enum Failure: Error, Hashable, Sendable, CustomStringConvertible {
        case noRing
        /// The ring kept moving.
        case staleRing
        /// So many of the nodes that hold pairs have not answered that some slot has no majority.
        case tooFewAnswer([NodeID: String])

        package var description: String {
            switch self {
            case .noRing: "this node has no ring"
            case .staleRing: "the ring keeps changing"
            case .tooFewAnswer(let reasons):
                "too few of the nodes that hold them answer: "
                    + reasons.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: "; ")
            }
        }
    }

    private static let pause = Duration.milliseconds(100)
    /// How often it is looked who is silent.
    private static let tickTime = Duration.milliseconds(500)

    private let node: NodeID
    private let pairs: HostPairs
    private let service: PeerService
    private let peers: PeerCaller
    private let clock: WorkerClock

    package init(node: NodeID, pairs: HostPairs, service: PeerService, peers: PeerCaller, clock: WorkerClock) {
        self.node = node
        self.pairs = pairs
        self.service = service
        self.peers = peers
        self.clock = clock
    }

    /// The next part: at most `query.limit` pairs, in their order, maybe none.
    package func part(_ query: Query) async throws -> ListingMerge {
        for _ in 0..<Limits.listingTries {
            try Task.checkCancellation()
            guard let view = try await pairs.view(), let table = view.table else { throw Failure.noRing }
            switch await ask(query, table) {
            case .merged(let merge): return merge
            case .tooFew(let reasons): throw Failure.tooFewAnswer(reasons)
            case .stale: break
            }
            try await Task.sleep(for: PairListing.pause)
        }
        throw Failure.staleRing
    }

    private enum Verdict {
        case merged(ListingMerge)
        case stale
        case tooFew([NodeID: String])
    }

    private enum Event {
        case answer(NodeID, Result<HostListingAnswer, any Error>)
        case tick
    }

    /// Asks all who answer reads, and waits for no more of them than it takes, nor for those who are known to be
    /// silent.
    private func ask(_ query: Query, _ table: RoutingTable) async -> Verdict {
        var missing = Set(table.placements.flatMap { $0.reads.flatMap(\.members) })
        let request = PeerMessage.ListRequest(
            epoch: table.document.epoch, after: query.after.bytes, prefix: query.prefix,
            limit: min(query.limit, max(Limits.partPairs / missing.count, 1)),
            bytes: query.isWhole ? Limits.partBytes / missing.count : nil)
        return await withTaskGroup(of: Event.self) { group in
            for other in missing { group.addTask { await answer(of: other, request) } }
            var listings: [NodeID: HostListing] = [:]
            var reasons: [NodeID: String] = [:]
            var isStale = false
            group.addTask { await PairListing.tick() }
            for await event in group {
                switch event {
                case .answer(let other, let result):
                    missing.remove(other)
                    switch result {
                    case .success(.listed(let listing)): listings[other] = listing
                    case .success(.staleRing): isStale = true
                    case .success(.recovering): reasons[other] = "it is recovering"
                    case .failure(let error): reasons[other] = "\(error)"
                    }
                    if let merge = ListingMerge(
                        listings, under: table, limit: query.limit, atMilliseconds: clock.wallMilliseconds)
                    {
                        group.cancelAll()
                        return .merged(merge)
                    }
                case .tick:
                    for silent in await pairs.silent(among: missing) {
                        missing.remove(silent)
                        reasons[silent] = "it is silent"
                    }
                    group.addTask { await PairListing.tick() }
                }
                if missing.isEmpty { break }
            }
            group.cancelAll()
            return isStale ? .stale : .tooFew(reasons)
        }
    }

    private static func tick() async -> Event {
        try? await Task.sleep(for: tickTime)
        return .tick
    }

    private func answer(of other: NodeID, _ request: PeerMessage.ListRequest) async -> Event {
        do {
            guard other != node else { return .answer(other, .success(try await service.list(request))) }
            return .answer(
                other, .success(try await peers.list(other, request, timeout: .seconds(Limits.listingSeconds))))
        } catch {
            return .answer(other, .failure(error))
        }
    }
}
