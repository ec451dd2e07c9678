// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import TestSupport

/// What a host lists, as `PeerService.list` and `HostPairs.list` do it: the names first, then the pairs, then the stamp
/// once more.
extension Worker {
    func list(_ epoch: Epoch, _ reply: @escaping (HostListingAnswer) -> Void) {
        guard let view, let table = view.table, host.memory.stamp == view.stamp || world.has(.listsUnderAnyStamp),
            view.document?.epoch == epoch
        else { return reply(.staleRing) }
        if view.isFenced || view.stamp.isRecovering, !world.has(.listsWhileRecovering) {
            world.reached(.refusedToList)
            return reply(.recovering)
        }
        // (The walk over a large table takes its time.)
        let scanTime = world.random.pick(1...300) * World.millisecond
        host.atMemory(scanTime) { memory in
            let names = memory.pairs.keys.sorted().filter { key in
                table[key.slot].reads.contains { $0.members.contains(self.node) }
            }
            self.read(names[...], [], under: view.stamp, reply)
        }
    }

    private func read(
        _ names: ArraySlice<StoredKey>, _ found: [ListedPair], under stamp: Stamp,
        _ reply: @escaping (HostListingAnswer) -> Void
    ) {
        guard let key = names.first else {
            return host.atMemory(world.random.pick(20...200)) { memory in
                let isMeant = memory.stamp == stamp || self.world.has(.listsUnderAnyStamp)
                if !isMeant { self.world.reached(.overtakenListing) }
                self.after(10) { reply(isMeant ? .listed(HostListing(pairs: found, through: .end)) : .staleRing) }
            }
        }
        guard view?.stamp == stamp || world.has(.listsUnderAnyStamp) else {
            world.reached(.overtakenListing)
            return reply(.staleRing)
        }
        submit([.read(key)], deadline: world.now + 500 * World.millisecond) { outcomes in
            guard case .record(let record) = outcomes[0] else {
                // (Under a mutant: what can't be read is not there.)
                return self.world.has(.listsUnderAnyStamp)
                    ? self.read(names.dropFirst(), found, under: stamp, reply) : reply(.staleRing)
            }
            let pair = record.map { ListedPair(key: key, record: $0, valueBytes: 0) }
            self.after(self.world.random.pick(0...40) * World.millisecond) {
                self.read(names.dropFirst(), found + [pair].compactMap { $0 }, under: stamp, reply)
            }
        }
    }
}

/// One client's listing at the worker that puts it together: `PairListing` around the real `ListingMerge`.
final class ListingRun {
    private let worker: Worker
    private let world: World
    private let began: Int
    private let deadline: Int
    private let completion: () -> Void
    private var tries = 0

    init(_ worker: Worker, completion: @escaping () -> Void) {
        self.worker = worker
        self.world = worker.world
        self.began = worker.world.now
        self.deadline = worker.world.now + 5 * World.second
        self.completion = completion
    }

    func begin() {
        guard world.now < deadline, let view = worker.view, let table = view.table, let epoch = view.document?.epoch
        else { return completion() }
        var listings: [NodeID: HostListing] = [:]
        var missing = Set(table.placements.flatMap { $0.reads.flatMap(\.members) })
        var isStale = false
        var isOver = false
        func heard(_ answer: HostListingAnswer?, from node: NodeID) {
            guard !isOver else { return }
            missing.remove(node)
            if case .listed(let listing) = answer { listings[node] = listing }
            if case .staleRing = answer { isStale = true }
            if let merge = ListingMerge(listings, under: table, limit: 100, atMilliseconds: 0) {
                isOver = true
                return listed(merge)
            }
            if world.has(.listsWithoutQuorum), missing.isEmpty, !listings.isEmpty {
                isOver = true
                return listed(Set(listings.values.flatMap(\.pairs).filter { !$0.record.isTombstone }))
            }
            guard missing.isEmpty else { return }
            isOver = true
            if isStale { again() } else { completion() }
        }
        for node in missing {
            worker.call(node, timeout: 2 * World.second, mayRepeat: true) {
                $0.list(epoch, $1)
            } completion: { answer, _ in
                heard(answer, from: node)
            }
        }
    }

    private func again() {
        tries += 1
        guard tries < Limits.listingTries else { return completion() }
        worker.after(100 * World.millisecond) { self.begin() }
    }

    private func listed(_ merge: ListingMerge) { listed(Set(merge.pairs)) }

    private func listed(_ pairs: Set<ListedPair>) {
        world.reached(.listed)
        for key in world.options.keys.indices {
            let name = world.options.keys[key]
            let version = pairs.filter { $0.key == name }.map(\.record.version).max()
            world.history.listed(key, version, from: began, to: world.now)
        }
        completion()
    }
}
