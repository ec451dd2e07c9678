// SPDX-License-Identifier: Apache-2.0

import Cluster
import Glibc
import HashRing
import KeyValue
import NIOCore
import TestSupport
import Testing

struct SnapshotFileTests {
    private let directory: TemporaryDirectory
    private let header: SnapshotHeader

    init() throws {
        directory = try TemporaryDirectory()
        header = SnapshotHeader(
            node: try #require(NodeID("127.0.0.1:5000")), generation: Generation(7), epoch: Epoch(2), clock: 99)
    }

    private var file: SnapshotFile { SnapshotFile(directory: directory.path) }
    private var path: String { directory.path + "/pairs.snapshot" }

    private func record(_ name: String, _ value: String) throws -> SnapshotRecord {
        let key = try #require(Key(name))
        return SnapshotRecord(
            key: StoredKey(key),
            envelope: Envelope(key: key, storedKey: StoredKey(key), value: ByteBuffer(string: value)))
    }

    private func bytes(of records: [SnapshotRecord]) throws -> ByteBuffer {
        var output = ByteBuffer()
        var encoder = SnapshotEncoder(header, into: &output)
        for record in records { try encoder.append(record, into: &output) }
        encoder.finish(into: &output)
        return output
    }

    private func publish(_ records: [SnapshotRecord]) async throws {
        let draft = try await file.draft()
        try await draft.write(try bytes(of: records))
        try await draft.publish()
    }

    private func parts() async throws -> [SnapshotPart] {
        let reader = try #require(try await file.reader())
        var parts: [SnapshotPart] = []
        while let part = try await reader.next() { parts.append(part) }
        return parts
    }

    private func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    @Test func thereIsNoneAtFirst() async throws {
        #expect(try await file.reader() == nil)
    }

    @Test func whatIsPublishedIsReadBack() async throws {
        let records = [try record("a", "1"), try record("b", "2")]
        try await publish(records)
        let sum = SnapshotSum(pairs: 2, bytes: records.reduce(0) { $0 + $1.bytes })
        #expect(try await parts() == [.header(header), .records(records), .end(sum)])
        #expect(!exists(path + ".new"))
    }

    @Test func aDraftThatIsGivenUpLeavesTheOneBefore() async throws {
        let records = [try record("a", "1")]
        try await publish(records)
        let draft = try await file.draft()
        try await draft.write(try bytes(of: [try record("a", "2")]))
        #expect(exists(path + ".new"))
        await draft.discard()
        #expect(!exists(path + ".new"))
        #expect(try await parts().dropFirst().first == .records(records))
        await #expect(throws: SnapshotFile.Failure.self) { try await draft.publish() }
    }

    /// Or the one that is slower would give the other's half its name.
    @Test func oneIsWrittenAtATime() async throws {
        let draft = try await file.draft()
        let failure = await #expect(throws: SnapshotFile.Failure.self) { _ = try await file.draft() }
        #expect(failure?.description == "\(SnapshotFile.Failure.busy)")
        await draft.discard()
        try await publish([])
    }

    @Test func whatAKilledWorkerLeftBehindIsInNobodysWay() async throws {
        let left = open(path + ".new", O_CREAT | O_WRONLY, 0o600)
        try #require(left >= 0)
        _ = write(left, "half", 4)
        close(left)
        try await publish([try record("a", "1")])
        #expect(try await parts().count == 3)
    }

    @Test func aFileThatCantBeWrittenLeavesTheOneBefore() async throws {
        try await publish([try record("a", "1")])
        // A directory of that name can't be unlinked, nor opened.
        try #require(mkdir(path + ".new", 0o700) == 0)
        await #expect(throws: SnapshotFile.Failure.self) { _ = try await file.draft() }
        #expect(try await parts().count == 3)
        rmdir(path + ".new")
        try await publish([])
        #expect(try await parts().count == 2)
    }

    @Test func tornAtEveryByte() async throws {
        let records = [try record("a", "1"), try record("b", "22")]
        try await publish(records)
        let whole = try await parts()
        for length in stride(from: try bytes(of: records).readableBytes - 1, through: 0, by: -1) {
            try #require(truncate(path, length) == 0)
            let reader = try #require(try await file.reader())
            var read: [SnapshotPart] = []
            await #expect(throws: SnapshotFile.Failure.self, "\(length)") {
                while let part = try await reader.next() { read.append(part) }
            }
            #expect(whole.starts(with: read) && read.count < whole.count, "\(length)")
        }
    }

    @Test func severalBlocksAreReadOneAfterTheOther() async throws {
        let records = try (0..<5).map { try record("k\($0)", String(repeating: "v", count: 700_000)) }
        try await publish(records)
        #expect(
            try await parts().filter { if case .records = $0 { true } else { false } } == records.map { .records([$0]) }
        )
    }
}
