// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue
package import Memcached
private import NIOCore

/// Brings the pairs of a snapshot, and of the log's segments, back into this host's memory, by versioned apply.
///
/// It applies while it reads, each block once its seal was found to hold. That is right even if a later block turns out
/// to be damaged: an apply never replaces anything newer, may be done twice, and each record is one that the host once
/// held, tombstones and times of expiry included. A damaged file then loses what is behind the damage, not all.
package struct SnapshotLoader: Sendable {
    package struct LoadedCount: Hashable, Sendable {
        /// Nil where there is no snapshot, or none that can be read.
        package internal(set) var header: SnapshotHeader?
        /// Those that this host holds now, in the snapshot's version or a newer one; tombstones count.
        package internal(set) var pairs = 0
        /// Of their keys and envelopes.
        package internal(set) var bytes = 0
        /// Left out, for they are of slots that are not wanted.
        package internal(set) var pairsLeftOut = 0
        /// memcached had no room for them, or they are larger than it takes.
        package internal(set) var pairsRefused = 0
        /// Why the snapshot, or what is behind the pairs counted here, can't be used; nil where it was whole, or there
        /// is none.
        package internal(set) var damage: String?
        /// Segments of the log that were read, up to where they are sound, and the records in them that are held now,
        /// in their version or a newer one.
        package internal(set) var segments = 0
        package internal(set) var records = 0

        package init() {}
    }

    private let pairs: HostPairs
    private let file: SnapshotFile
    private let clock: WorkerClock
    private let failpoints: Failpoints

    package init(pairs: HostPairs, file: SnapshotFile, clock: WorkerClock, failpoints: Failpoints) {
        self.pairs = pairs
        self.file = file
        self.clock = clock
        self.failpoints = failpoints
    }

    /// Loads what is on disk. A missing or damaged file is no error: what it has is loaded.
    /// - Parameters:
    ///   - stamp: what this worker stands on, throughout.
    ///   - isWanted: whether pairs of this slot belong here.
    ///   - progress: told after each block.
    /// - Throws: where ring or memory change meanwhile (`HostPairs.Failure.overtaken`), memcached does not answer, or
    ///   the disk can't be read;
    ///   what was applied until then stays, and loading again goes over it once more.
    package func load(
        under stamp: HostStamp, where isWanted: @Sendable (Slot) -> Bool = { _ in true },
        progress: @Sendable (LoadedCount) async -> Void = { _ in }
    ) async throws -> LoadedCount {
        var count = LoadedCount()
        count.damage = try await loadFile(file.path, under: stamp, where: isWanted, &count, progress).damage
        let segments = LogSegments(directory: file.directory)
        guard segments.exist else { return count }
        // Other workers of this host may have some records yet that they stored in the memory that was lost.
        try await Task.sleep(for: .milliseconds(Limits.logSettleMilliseconds))
        var logged = LoadedCount()
        var loaded: Set<String> = []
        // Until all are loaded: workers that live close theirs meanwhile, which gives them another name.
        for _ in 0..<SnapshotLoader.looks {
            let names = try await SnapshotDisk.perform { () throws(SnapshotFile.Failure) in try segments.all() }
            let left = names.filter { !loaded.contains(LogSegments.withoutStage($0)) }
            if left.isEmpty { break }
            for name in left {
                // A segment ends where it is torn: what is behind that was never synced.
                let path = segments.path(name)
                guard try await loadFile(path, under: stamp, where: isWanted, &logged, { _ in }).isThere else {
                    continue
                }
                loaded.insert(LogSegments.withoutStage(name))
                count.segments += 1
            }
        }
        count.records = logged.pairs
        count.pairsLeftOut += logged.pairsLeftOut
        count.pairsRefused += logged.pairsRefused
        return count
    }

    /// How often segments are listed. A name that is gone by the time that it is opened was given another one, once.
    private static let looks = 16

    /// - Returns: whether there is such a file, and why it, or what is behind what was loaded, can't be used.
    private func loadFile(
        _ path: String, under stamp: HostStamp, where isWanted: @Sendable (Slot) -> Bool, _ count: inout LoadedCount,
        _ progress: @Sendable (LoadedCount) async -> Void
    ) async throws -> (isThere: Bool, damage: String?) {
        do {
            guard let reader = try await SnapshotReader.open(path) else { return (false, nil) }
            while let part = try await reader.next() {
                switch part {
                case .header(let header):
                    count.header = header
                    clock.merge(header.clock)
                case .records(let records):
                    let wanted = records.filter { isWanted($0.key.slot) }
                    count.pairsLeftOut += records.count - wanted.count
                    try await apply(wanted, under: stamp, &count)
                    try await failpoints.hit("snapshot.load.block")
                    await progress(count)
                case .end: break
                }
            }
            return (true, nil)
        } catch {
            // (A disk that can't be read just now may give it another time: that is no damage.)
            guard case .damaged(let reason)? = error as? SnapshotFile.Failure else { throw error }
            return (true, reason)
        }
    }

    /// A window of batches at a time.
    private func apply(
        _ records: [SnapshotRecord], under stamp: HostStamp, _ count: inout LoadedCount
    ) async throws {
        try await withThrowingTaskGroup(of: (batch: ArraySlice<SnapshotRecord>, outcomes: [Outcome]).self) { group in
            var rest = records[...]
            func addBatch() {
                guard !rest.isEmpty else { return }
                let batch = SnapshotLoader.nextBatch(of: rest)
                rest = rest[batch.endIndex...]
                group.addTask { [pairs] in (batch, try await pairs.apply(Array(batch), under: stamp)) }
            }
            for _ in 0..<Limits.handoffWindow { addBatch() }
            while let (batch, outcomes) = try await group.next() {
                for (record, outcome) in zip(batch, outcomes) { try count.add(record, outcome) }
                addBatch()
            }
        }
    }

    private static func nextBatch(of records: ArraySlice<SnapshotRecord>) -> ArraySlice<SnapshotRecord> {
        var bytes = 0
        let batch = records.prefix(Limits.handoffBatchPairs).prefix { record in
            bytes += record.bytes
            return bytes <= Limits.handoffBatchBytes
        }
        return batch.isEmpty ? records.prefix(1) : batch
    }
}

extension SnapshotLoader.LoadedCount {
    fileprivate mutating func add(_ record: SnapshotRecord, _ outcome: Outcome) throws {
        switch outcome {
        case .applied:
            pairs += 1
            bytes += record.bytes
        case .failed(.notApplied(.outOfMemory)), .failed(.notApplied(.tooLarge)): pairsRefused += 1
        default: throw HostPairs.Failure.local(Optional(outcome).asFailure)
        }
    }
}
