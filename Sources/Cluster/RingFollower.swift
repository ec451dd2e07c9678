// SPDX-License-Identifier: Apache-2.0

package import Etcd
private import HashRing
package import Logging
package import Memcached

/// Learns each ring document from etcd as soon as it is there, on one worker of a host at a time.
package struct RingFollower: Sendable {
    private static let pause = Duration.milliseconds(500)
    private static let leaseLife = Duration.milliseconds(3000)
    private static let readTime = Duration.milliseconds(3000)
    /// Then the document is read again, whatever the watch has said or not.
    private static let watchTime = Duration.seconds(15)
    private static let foundingTime = Duration.milliseconds(700)
    private static let leaseName = "ring"

    private let etcd: EtcdClient
    private let ledger: RingLedger
    private let keeper: RingKeeper
    private let leases: LeaseStore
    private let logger: Logger
    private let holder: String

    package init(etcd: EtcdClient, ledger: RingLedger, keeper: RingKeeper, leases: LeaseStore, logger: Logger) {
        self.etcd = etcd
        self.ledger = ledger
        self.keeper = keeper
        self.leases = leases
        self.logger = logger
        self.holder = String(UInt64.random(in: .min ... .max), radix: 16)
    }

    /// Runs until it is cancelled.
    package func run() async {
        var lastError = ""
        while (try? await Task.sleep(for: RingFollower.pause)) != nil {
            let (name, life) = (RingFollower.leaseName, RingFollower.leaseLife)
            guard (try? await leases.acquire(name, holder: holder, timeToLive: life)) == true else { continue }
            do {
                try await leases.holding(name, holder: holder, timeToLive: life) { [self] in try await follow() }
                lastError = ""
            } catch {
                let text = "\(error)"
                if text != lastError, !Task.isCancelled {
                    logger.warning("can't follow the ring in etcd", metadata: ["error": "\(text)"])
                    lastError = text
                }
            }
        }
    }

    private func follow() async throws {
        let page = try await ledger.read(within: RingFollower.readTime)
        if let document = page.document { try await hear(document) }
        try await etcd.watch(ledger.ringKey, from: page.storeRevision + 1, for: RingFollower.watchTime) { pair in
            // (A key that was deleted.)
            guard pair.modRevision > 0, !pair.value.isEmpty else { return }
            try await hear(ledger.document(pair))
        }
    }

    /// As from a peer; but etcd is no proof that the ring is this node's.
    private func hear(_ document: RingDocument) async throws {
        if let own = await keeper.known, !own.isOfOneCluster(with: document) {
            throw EtcdError.refused("the ring under \(ledger.ringKey) names none of this node's nodes")
        }
        // Whoever founds a cluster tells the others so as well: which is to come first.
        if await keeper.document == nil { try await Task.sleep(for: RingFollower.foundingTime) }
        try await keeper.learn(document)
    }
}
