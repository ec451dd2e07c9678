// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue
package import Memcached
private import NIOCore

/// Writes this host's pairs to disk, all in one pass, while clients go on. Nothing of a pass counts unless all of it
/// came from one memory: what is on disk is never replaced by what a host has that has just lost its pairs.
package struct SnapshotWriter: Sendable {
    package enum Failure: Error, Sendable, CustomStringConvertible {
        /// This host does not hold all that it is to hold.
        case notComplete
        /// This host's memory came back empty meanwhile.
        case memoryLost
        /// This memory is empty, and the snapshot of the one before it is not: nobody has loaded it.
        case nothingToKeep

        package var description: String {
            switch self {
            case .notComplete: "this host does not hold all its pairs (yet)"
            case .memoryLost: "memcached has come back empty meanwhile"
            case .nothingToKeep: "memcached is empty, and the snapshot on disk was not loaded"
            }
        }
    }

    package struct Dependencies: Sendable {
        package let node: NodeID
        package let pairs: HostPairs
        package let control: ControlStore
        package let file: SnapshotFile
        package let clock: WorkerClock
        package let failpoints: Failpoints
        /// Whether this host holds all that it is to hold, so that what it holds may replace what is on disk. Asked
        /// before a pass and at its end.
        package let maySnapshot: @Sendable () async -> Bool

        package init(
            node: NodeID, pairs: HostPairs, control: ControlStore, file: SnapshotFile,
            clock: WorkerClock, failpoints: Failpoints, maySnapshot: @escaping @Sendable () async -> Bool = { true }
        ) {
            self.node = node
            self.pairs = pairs
            self.control = control
            self.file = file
            self.clock = clock
            self.failpoints = failpoints
            self.maySnapshot = maySnapshot
        }
    }

    private let with: Dependencies

    package init(_ dependencies: Dependencies) { self.with = dependencies }

    /// The memory that a snapshot would be of; nil while there is none, or it may not be taken.
    package func generation() async -> Generation? {
        guard await with.maySnapshot() else { return nil }
        return try? await with.pairs.stamp()?.generation
    }

    /// Whether the log waits for a snapshot: a killed worker has left a segment, so that only a snapshot can have all
    /// that it stored, or there is room for no more than a snapshot.
    package func isLogWanting() async -> Bool {
        let segments = segments
        let isWanting = try? await SnapshotDisk.perform { () throws(SnapshotFile.Failure) in
            segments.hasOrphan || (segments.exist && !segments.hasRoomForSnapshot)
        }
        return isWanting ?? false
    }

    private var segments: LogSegments { LogSegments(directory: with.file.directory) }

    /// One pass. When it returns, the snapshot is on disk; when it throws, the one before still is.
    package func write() async throws -> SnapshotSum {
        guard await with.maySnapshot() else { throw Failure.notComplete }
        guard let stamp = try await with.pairs.stamp() else { throw Failure.memoryLost }
        let draft = try await with.file.draft()
        do {
            // Before the scan begins: all that is in them is in memcached by now.
            let segments = segments
            let covered = try await SnapshotDisk.perform { () throws(SnapshotFile.Failure) in try segments.settled() }
            let sum = try await fill(draft, stamp)
            guard await with.maySnapshot() else { throw Failure.notComplete }
            // No memory comes back with the generation of another: this one has been there all the while.
            guard try await with.control.hostStamp()?.generation == stamp.generation else { throw Failure.memoryLost }
            if sum.pairs == 0, try await isOtherMemorysKept(stamp.generation) { throw Failure.nothingToKeep }
            try Task.checkCancellation()
            try await with.failpoints.hit("snapshot.publish")
            try await draft.publish()
            // (A memory without any pair may be another than the one they are of.)
            if sum.pairs > 0 { await SnapshotDisk.perform { segments.remove(covered) } }
            return sum
        } catch {
            await draft.discard()
            throw error
        }
    }

    private func fill(_ draft: SnapshotDraft, _ stamp: HostStamp) async throws -> SnapshotSum {
        var output = ByteBuffer()
        var encoder = SnapshotEncoder(
            SnapshotHeader(
                node: with.node, generation: stamp.generation, epoch: stamp.epoch, clock: with.clock.reading),
            into: &output)
        var began = ContinuousClock.now
        try await with.pairs.forEachBatch(in: stamp.generation) { batch in
            let bytesBefore = encoder.sum.bytes
            for (key, record) in batch {
                try encoder.append(SnapshotRecord(key: key, envelope: record), into: &output)
            }
            if output.readableBytes > 0 {
                try await draft.write(output)
                output.clear()
            }
            try await with.failpoints.hit("snapshot.batch")
            try await rest(since: began, bytes: encoder.sum.bytes - bytesBefore)
            began = .now
        }
        encoder.finish(into: &output)
        try await draft.write(output)
        return encoder.sum
    }

    /// As long as the batch took, so that half of the time is the clients' alone, and the more, the busier memcached
    /// is; longer where the batch would exceed the rate.
    private func rest(since began: ContinuousClock.Instant, bytes: Int) async throws {
        let took = ContinuousClock.now - began
        let least = Duration.seconds(Double(bytes) / Double(Limits.snapshotBytesPerSecond))
        try await Task.sleep(for: max(took, least - took))
    }

    /// Whether the disk has pairs of another memory. A file that can't be read is none that is worth keeping.
    private func isOtherMemorysKept(_ generation: Generation) async throws -> Bool {
        guard let reader = try await with.file.reader(),
            case .header(let header) = try? await reader.next(), header.generation != generation,
            case .records = try? await reader.next()
        else { return false }
        return true
    }
}
