// SPDX-License-Identifier: Apache-2.0

private import Glibc
package import KeyValue
private import NIOCore

/// What a log asks of its disk, so that tests can make it fail.
package struct LogDisk: Sendable {
    /// How many bytes were written, or an error's number below zero.
    package var write: @Sendable (_ file: CInt, UnsafeRawBufferPointer) -> Int
    /// Zero, or an error's number.
    package var sync: @Sendable (_ file: CInt) -> CInt

    package init(
        write: @escaping @Sendable (CInt, UnsafeRawBufferPointer) -> Int, sync: @escaping @Sendable (CInt) -> CInt
    ) {
        self.write = write
        self.sync = sync
    }

    /// - Parameter failpoints: `log.write` and `log.sync`: no room, and an error.
    package static func system(_ failpoints: Failpoints = .disabled) -> LogDisk {
        LogDisk(
            write: { file, bytes in
                guard case .pass = failpoints.hitNow("log.write") else { return -Int(ENOSPC) }
                let count = Glibc.write(file, bytes.baseAddress, bytes.count)
                return count < 0 ? -Int(errno) : count
            },
            sync: { file in
                guard case .pass = failpoints.hitNow("log.sync") else { return EIO }
                return fdatasync(file) == 0 ? 0 : errno
            })
    }
}

/// A worker's segments, one after the other. It keeps what it was given until a sync has succeeded: a segment of which
/// a write or a sync failed is never touched again, and the next one gets all that may have been lost with it.
///
/// Belongs to one thread, which may wait. Times are the caller's, in milliseconds on a clock that is never set back.
package struct LogWriter: ~Copyable {
    package struct Failure: Error, Sendable, CustomStringConvertible {
        package let description: String

        package init(description: String) { self.description = description }
    }

    private struct Segment {
        /// Without its stage.
        let path: String
        let file: CInt
        var encoder: SnapshotEncoder
        let begunMilliseconds: Int64
    }

    private let segments: LogSegments
    private let disk: LogDisk
    /// In the names of its segments.
    private let number: UInt64
    private var counter = 0
    private var segment: Segment?
    /// What no sync has covered yet.
    private var unsynced: [SnapshotBlock] = []

    /// Bytes of the records that no sync has covered yet.
    package private(set) var unsyncedBytes = 0

    package init(_ segments: LogSegments, disk: LogDisk, number: UInt64 = .random(in: .min ... .max)) {
        self.segments = segments
        self.disk = disk
        self.number = number
    }

    deinit {
        // As if the process had been killed: whoever wants it closed says so.
        if let segment { Glibc.close(segment.file) }
    }

    /// When the present segment is to be closed; nil where there is none.
    package var closingMilliseconds: Int64? { segment.map { $0.begunMilliseconds + Limits.logSegmentMilliseconds } }

    package var isSegmentFull: Bool { segment.map { $0.encoder.sum.bytes >= Limits.logSegmentBytes } ?? false }

    /// Takes blocks over, and does nothing with them yet.
    package mutating func keep(_ blocks: [SnapshotBlock]) {
        unsynced += blocks
        unsyncedBytes += blocks.reduce(0) { $0 + $1.sum.bytes }
    }

    /// Takes blocks over and writes them; where there is no segment, begins one with all that it keeps, and syncs it.
    /// - Parameters:
    ///   - header: of a segment that is begun.
    ///   - isTrial: whether one is begun even where there is nothing to write, to see if that can be done.
    package mutating func write(
        _ blocks: [SnapshotBlock], _ header: @autoclosure () -> SnapshotHeader, at milliseconds: Int64,
        isTrial: Bool = false
    ) throws(Failure) {
        keep(blocks)
        if segment != nil {
            var output = ByteBuffer()
            for block in blocks { segment?.encoder.append(block, into: &output) }
            try write(output)
        } else if isTrial || !unsynced.isEmpty {
            try begin(header(), at: milliseconds)
        }
    }

    /// What was written is on disk when this returns.
    package mutating func sync() throws(Failure) {
        guard let segment, !unsynced.isEmpty else { return }
        let number = disk.sync(segment.file)
        guard number == 0 else {
            giveUp(segment)
            throw failure("sync", segment.path, number)
        }
        forget()
    }

    /// Ends the segment, if there is one, with a trailer; a sync is part of it.
    package mutating func close() throws(Failure) {
        guard var ended = segment else { return }
        var output = ByteBuffer()
        ended.encoder.finish(into: &output)
        segment = ended
        try write(output)
        let number = disk.sync(ended.file)
        giveUp(ended)
        guard number == 0 else { throw failure("sync", ended.path, number) }
        forget()
    }

    // MARK: Segments

    private mutating func begin(_ header: SnapshotHeader, at milliseconds: Int64) throws(Failure) {
        let path = segments.path(LogSegments.name(writer: self.number, number: counter))
        counter += 1
        let new = path + LogSegments.Stage.new.rawValue
        let file = Glibc.open(new, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw failure("open", new, errno) }
        var output = ByteBuffer()
        var encoder = SnapshotEncoder(header, into: &output)
        for block in unsynced { encoder.append(block, into: &output) }
        do throws(Failure) {
            // (Who looks whether anybody has it holds the lock for a moment.)
            guard flock(file, LOCK_EX) == 0 else { throw failure("lock", new, errno) }
            try put(output, file, new)
            let number = disk.sync(file)
            guard number == 0 else { throw failure("sync", new, number) }
            // Only now: under this name it counts, and it has to be locked by then.
            guard rename(new, path + LogSegments.Stage.open.rawValue) == 0 else { throw failure("rename", new, errno) }
            try syncDirectory()
        } catch {
            // Nobody relies on it: all that is in it is kept here.
            unlink(new)
            unlink(path + LogSegments.Stage.open.rawValue)
            Glibc.close(file)
            throw error
        }
        segment = Segment(path: path, file: file, encoder: encoder, begunMilliseconds: milliseconds)
        forget()
    }

    private func syncDirectory() throws(Failure) {
        let folder = Glibc.open(segments.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else { throw failure("open", segments.directory, errno) }
        defer { Glibc.close(folder) }
        guard fsync(folder) == 0 else { throw failure("sync", segments.directory, errno) }
    }

    /// Never to be touched again. Its name tells all that nobody writes to it, and only then its lock goes.
    private mutating func giveUp(_ given: Segment) {
        segment = nil
        rename(given.path + LogSegments.Stage.open.rawValue, given.path)
        Glibc.close(given.file)
    }

    private mutating func forget() {
        unsynced.removeAll(keepingCapacity: true)
        unsyncedBytes = 0
    }

    // MARK: Bytes

    private mutating func write(_ bytes: ByteBuffer) throws(Failure) {
        guard let segment else { return }
        do throws(Failure) {
            try put(bytes, segment.file, segment.path)
        } catch {
            giveUp(segment)
            throw error
        }
    }

    private func put(_ bytes: ByteBuffer, _ file: CInt, _ path: String) throws(Failure) {
        var bytes = bytes
        while bytes.readableBytes > 0 {
            let count = bytes.withUnsafeReadableBytes { disk.write(file, $0) }
            if count > 0 {
                bytes.moveReaderIndex(forwardBy: count)
            } else if count != -Int(EINTR) {
                throw failure("write", path, CInt(clamping: -count))
            }
        }
    }

    private func failure(_ verb: String, _ path: String, _ number: CInt) -> Failure {
        Failure(description: "can't \(verb) \(path): \(String(cString: strerror(number)))")
    }
}
