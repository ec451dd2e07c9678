// SPDX-License-Identifier: Apache-2.0

import Cluster
import Foundation
import HashRing
import TestSupport
import Testing

/// The ring on disk, whole or not at all.
struct RingFileTests {
    private let directory: TemporaryDirectory
    private let file: RingFile
    private var path: String { directory.path + "/ring.json" }

    init() throws {
        directory = try TemporaryDirectory()
        file = RingFile(directory: directory.path)
    }

    private func document(_ epoch: UInt64) throws -> RingDocument {
        let seats = try (1...3).map {
            Ring.Seat(position: try #require(Position($0 * 2000)), node: try #require(NodeID("10.0.0.\($0):5000")))
        }
        return RingDocument(epoch: Epoch(epoch), ring: try #require(Ring(seats: seats)), replicas: 3)
    }

    @Test func whatIsSavedIsLoaded() throws {
        #expect(try file.load() == nil, "there is none yet")
        try file.save(try document(4))
        #expect(try file.load() == document(4))
        try file.save(try document(3))
        #expect(try file.load() == document(4), "an older one does not take its place")
        try file.rehearse(try document(9))
        #expect(try file.load() == document(4), "a rehearsal changes nothing")
    }

    /// Cut off at any byte, or with any byte changed: a failure, never a document that was not saved.
    @Test func aDamagedFileIsNone() throws {
        try file.save(try document(4))
        let whole = try Data(contentsOf: URL(fileURLWithPath: path))
        for length in whole.indices {
            try whole.prefix(length).write(to: URL(fileURLWithPath: path))
            #expect(throws: RingFile.Failure.self, "cut off after \(length) bytes") { try file.load() }
        }
        for index in whole.indices {
            var changed = whole
            changed[index] ^= 0x04
            try changed.write(to: URL(fileURLWithPath: path))
            // (A letter's case in the name of a key, or a blank, may be taken for what it was.)
            if let found = try? file.load() { #expect(try found == document(4), "byte \(index) changed") }
        }
        try file.save(try document(5))
        #expect(try file.load() == document(5), "a damaged file is written over")
    }
}
