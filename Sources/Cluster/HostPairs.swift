// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue
package import Memcached
package import NIOCore

/// This host's pairs for the control plane: batches through the worker's lanes, in the memory that the caller means.
/// Reads and versioned applies may be done twice, so a batch that got no answer is sent again.
package struct HostPairs: Sendable {
    package enum Failure: Error, Sendable, CustomStringConvertible {
        /// This host's memory, or where the caller cares its ring, is no longer the one that it began with.
        case overtaken
        case local(OperationFailure)

        package var description: String {
            switch self {
            case .overtaken: "the ring, or this host's memory, has changed meanwhile"
            case .local(let failure): "this host: \(failure)"
            }
        }
    }

    private static let batchTime = TimeAmount.seconds(2)
    private static let pause = Duration.milliseconds(100)

    private let coordinator: NIOLoopBound<Coordinator>
    private let loop: any EventLoop
    let scanner: MetadumpScanner

    package init(coordinator: NIOLoopBound<Coordinator>, loop: any EventLoop, scanner: MetadumpScanner) {
        self.coordinator = coordinator
        self.loop = loop
        self.scanner = scanner
    }

    /// What this worker acts on; nil while its host has no ring.
    func view() async throws -> RingView? { try await loop.submit { coordinator.value.view }.get() }

    /// Those of the nodes that did not answer the latest heartbeat.
    func silent(among nodes: Set<NodeID>) async -> Set<NodeID> {
        // (Fails only where the loop has ended, and the process with it.)
        (try? await loop.submit { nodes.filter { coordinator.value.heartbeat.isSilent($0) } }.get()) ?? []
    }

    package func stamp() async throws -> HostStamp? { try await view()?.stamp }

    /// A record for each key, tombstones included, under whatever ring this host stands on; nil for those that are
    /// gone.
    package func records(of keys: [StoredKey], in generation: Generation) async throws -> [Envelope?] {
        try await perform(keys.map { .read($0) }) { $0.generation == generation }.map { try $0.read() }
    }

    /// Stores what is newer than what is held, of records that this host's own disk has; an outcome for each.
    package func apply(_ records: [SnapshotRecord], under stamp: HostStamp) async throws -> [Outcome] {
        try await perform(records.map { .apply($0.key, $0.envelope) }, isFromDisk: true) { $0 == stamp }
    }

    /// An outcome for each operation, all done while this host stood on the stamp.
    func perform(_ operations: [Operation], under stamp: HostStamp) async throws -> [Outcome] {
        try await perform(operations) { $0 == stamp }
    }

    /// Hands on all pairs of these slots as they are stored, tombstones included, in batches of a hand-off's size.
    func forEachBatch(
        in generation: Generation, where isWanted: @escaping @Sendable (Slot) -> Bool = { _ in true },
        _ body: ([(key: StoredKey, record: Envelope)]) async throws -> Void
    ) async throws {
        var lowest = 0
        while lowest < Slot.count {
            let from = UInt16(lowest)
            let scan = try await scanner.scan { $0.value >= from && isWanted($0) }
            var start = 0
            while start < scan.keys.count {
                try Task.checkCancellation()
                let end = scan.keys.endOfHandoffBatch(from: start)
                let keys = (start..<end).map { scan.keys[$0] }
                try await body(
                    zip(keys, try await records(of: keys, in: generation)).compactMap { key, record in
                        record.map { (key, $0) }
                    })
                start = end
            }
            guard let last = scan.coveredThrough else { break }
            lowest = Int(last.value) + 1
        }
    }

    /// Does something that counts as an operation under this stamp's epoch: no newer document is adopted meanwhile.
    func whileStanding<Result: Sendable>(
        on stamp: HostStamp, _ body: () async throws -> Result
    ) async throws -> Result {
        let isStanding = try await loop.submit {
            guard coordinator.value.view?.stamp == stamp else { return false }
            coordinator.value.local.begin(stamp.epoch)
            return true
        }.get()
        guard isStanding else { throw Failure.overtaken }
        let result: Swift.Result<Result, any Error>
        do {
            result = .success(try await body())
        } catch {
            result = .failure(error)
        }
        try await loop.submit { coordinator.value.local.end(stamp.epoch) }.get()
        return try result.get()
    }

    private func perform(
        _ operations: [Operation], isFromDisk: Bool = false, where isMeant: @escaping @Sendable (HostStamp) -> Bool
    ) async throws -> [Outcome] {
        guard !operations.isEmpty else { return [] }
        var tries = 0
        while true {
            let outcomes = try await performOnce(operations, isFromDisk, where: isMeant)
            guard let failure = outcomes.lazy.compactMap(\.passingFailure).first else { return outcomes }
            tries += 1
            guard tries < Limits.snapshotBatchTries else { throw Failure.local(failure) }
            try await Task.sleep(for: HostPairs.pause)
        }
    }

    private func performOnce(
        _ operations: [Operation], _ isFromDisk: Bool, where isMeant: @escaping @Sendable (HostStamp) -> Bool
    ) async throws -> [Outcome] {
        try await loop.flatSubmit {
            let promise = loop.makePromise(of: [Outcome].self)
            let coordinator = coordinator.value
            if let stamp = coordinator.view?.stamp, isMeant(stamp) {
                coordinator.local.submit(operations, deadline: .now() + HostPairs.batchTime, isFromDisk: isFromDisk) {
                    outcomes, _ in
                    promise.succeed(outcomes)
                }
            } else {
                promise.fail(Failure.overtaken)
            }
            return promise.futureResult
        }.get()
    }
}

extension Outcome {
    /// What a read has found.
    func read() throws(HostPairs.Failure) -> Envelope? {
        guard case .record(let record) = self else { throw .local(Optional(self).asFailure) }
        return record
    }

    /// A failure that may be gone a moment later.
    fileprivate var passingFailure: OperationFailure? {
        guard case .failed(let failure) = self else { return nil }
        switch failure {
        case .notApplied(.outOfMemory), .notApplied(.tooLarge): return nil
        case .notApplied, .outcomeUnknown, .tooFewHold, .staleRing, .preconditionFailed: return failure
        }
    }
}
