// SPDX-License-Identifier: Apache-2.0

private import Glibc
package import KeyValue
package import NIOCore
private import NIOPosix

/// The snapshot on disk. It is written aside and gets its name only once all of it is synced, under a lock that the
/// host's workers share, so that under its name there always is a whole one: the one before, until the next is done.
///
/// Disks take their time, so everything happens on threads for that, never on an event loop or a task's.
package struct SnapshotFile: Sendable {
    package enum Failure: Error, Sendable, CustomStringConvertible {
        case disk(String)
        /// The file is torn, or none of ours.
        case damaged(String)
        /// Another worker of the host is writing a snapshot.
        case busy

        package var description: String {
            switch self {
            case .disk(let text): text
            case .damaged(let text): text
            case .busy: "another worker is writing a snapshot"
            }
        }
    }

    package let directory: String

    var path: String { directory + "/pairs.snapshot" }
    var newPath: String { path + ".new" }
    private var lockPath: String { directory + "/snapshot.lock" }

    package init(directory: String) { self.directory = directory }

    /// Whether there is one, whatever it is worth.
    package var exists: Bool { access(path, F_OK) == 0 }

    /// Gives the snapshot up.
    package func remove() throws(Failure) {
        guard unlink(path) == 0 || errno == ENOENT else { throw SnapshotDisk.failure("remove", path) }
    }

    /// Begins a new file beside the one that counts; what an earlier attempt left behind goes.
    package func draft() async throws(Failure) -> SnapshotDraft {
        try await SnapshotDisk.perform { () throws(Failure) in
            let lock = open(lockPath, O_CREAT | O_RDWR | O_CLOEXEC, 0o600)
            guard lock >= 0 else { throw SnapshotDisk.failure("open", lockPath) }
            guard flock(lock, LOCK_EX | LOCK_NB) == 0 else {
                let isBusy = errno == EWOULDBLOCK
                let failure = SnapshotDisk.failure("lock", lockPath)
                close(lock)
                throw isBusy ? .busy : failure
            }
            // A new one, for what a failed sync has left in an old one's pages nobody knows.
            unlink(newPath)
            let file = open(newPath, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0o600)
            guard file >= 0 else {
                let failure = SnapshotDisk.failure("open", newPath)
                close(lock)
                throw failure
            }
            return SnapshotDraft(self, file: file, lock: lock)
        }
    }

    /// Nil where there is no snapshot.
    package func reader() async throws(Failure) -> SnapshotReader? {
        try await SnapshotReader.open(path)
    }
}

/// A snapshot that is being written. It counts only once it is published; whoever begins one discards it or publishes
/// it.
package actor SnapshotDraft {
    private let snapshot: SnapshotFile
    /// Held, with the lock, until the draft is closed.
    private var descriptors: (file: CInt, lock: CInt)?
    private var unsyncedBytes = 0

    fileprivate init(_ snapshot: SnapshotFile, file: CInt, lock: CInt) {
        self.snapshot = snapshot
        self.descriptors = (file, lock)
    }

    deinit {
        if let descriptors {
            close(descriptors.file)
            close(descriptors.lock)
        }
    }

    /// Appends; now and then waits until the disk has what was written, so that a large file neither fills the host's
    /// memory with pages nor keeps the disk busy all at once in the end.
    package func write(_ bytes: ByteBuffer) async throws(SnapshotFile.Failure) {
        let file = try file
        unsyncedBytes += bytes.readableBytes
        let isSync = unsyncedBytes >= Limits.snapshotUnsyncedBytes
        if isSync { unsyncedBytes = 0 }
        let path = snapshot.newPath
        try await SnapshotDisk.perform { () throws(SnapshotFile.Failure) in
            try SnapshotDisk.write(bytes, to: file, path)
            guard isSync else { return }
            guard fdatasync(file) == 0 else { throw SnapshotDisk.failure("sync", path) }
            // Nobody reads them soon; memcached and the workers have a use for the memory.
            posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED)
        }
    }

    /// Puts the draft in the place of the snapshot. When this returns, it survives a power cut.
    package func publish() async throws(SnapshotFile.Failure) {
        let file = try file
        let snapshot = snapshot
        try await SnapshotDisk.perform { () throws(SnapshotFile.Failure) in
            guard fsync(file) == 0 else { throw SnapshotDisk.failure("sync", snapshot.newPath) }
            guard rename(snapshot.newPath, snapshot.path) == 0 else {
                throw SnapshotDisk.failure("rename", snapshot.newPath)
            }
            let folder = open(snapshot.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard folder >= 0 else { throw SnapshotDisk.failure("open", snapshot.directory) }
            defer { close(folder) }
            guard fsync(folder) == 0 else { throw SnapshotDisk.failure("sync", snapshot.directory) }
        }
        await end(isPublished: true)
    }

    /// Gives the draft up; the snapshot stays what it was.
    package func discard() async { await end(isPublished: false) }

    private func end(isPublished: Bool) async {
        guard let (file, lock) = descriptors else { return }
        descriptors = nil
        let path = snapshot.newPath
        await SnapshotDisk.perform {
            // Before the lock goes: the next draft has the same name.
            if !isPublished { unlink(path) }
            close(file)
            close(lock)
        }
    }

    private var file: CInt {
        get throws(SnapshotFile.Failure) {
            guard let descriptors else { throw .disk("\(snapshot.newPath) is closed") }
            return descriptors.file
        }
    }
}

/// Reads a snapshot from its beginning, a part at a time; holds one part at most.
package actor SnapshotReader {
    private static let chunkBytes = 1 << 20

    private let path: String
    private let file: CInt
    private var decoder = SnapshotDecoder()
    private var buffer = ByteBuffer()

    private init(_ path: String, file: CInt) {
        self.path = path
        self.file = file
    }

    deinit { close(file) }

    /// Nil where there is no such file.
    package static func open(_ path: String) async throws(SnapshotFile.Failure) -> SnapshotReader? {
        try await SnapshotDisk.perform { () throws(SnapshotFile.Failure) in
            let file = Glibc.open(path, O_RDONLY | O_CLOEXEC)
            if file >= 0 { return SnapshotReader(path, file: file) }
            if errno == ENOENT { return nil }
            throw SnapshotDisk.failure("open", path)
        }
    }

    /// - Returns: the next part, whose seal holds; nil behind the last one of a whole snapshot.
    package func next() async throws(SnapshotFile.Failure) -> SnapshotPart? {
        while true {
            do throws(SnapshotError) {
                if let part = try decoder.next(&buffer) { return part }
            } catch {
                throw .damaged("\(path): \(error)")
            }
            let (file, path) = (file, path)
            let chunk = try await SnapshotDisk.perform { () throws(SnapshotFile.Failure) in
                try SnapshotDisk.read(upTo: SnapshotReader.chunkBytes, from: file, path)
            }
            guard chunk.readableBytes > 0 else {
                guard decoder.isWhole else { throw .damaged("\(path) is cut off") }
                return nil
            }
            if buffer.readableBytes == 0 {
                buffer = chunk
            } else {
                buffer.discardReadBytes()
                buffer.writeImmutableBuffer(chunk)
            }
        }
    }
}

/// Calls that wait for a disk.
enum SnapshotDisk {
    /// Runs it on a thread that may wait. It is waited for even if the task is cancelled.
    static func perform<Answer: Sendable>(
        _ body: @escaping @Sendable () throws(SnapshotFile.Failure) -> Answer
    ) async throws(SnapshotFile.Failure) -> Answer {
        let result = await withCheckedContinuation {
            (continuation: CheckedContinuation<Result<Answer, SnapshotFile.Failure>, Never>) in
            NIOThreadPool.singleton.submit { _ in
                do throws(SnapshotFile.Failure) {
                    continuation.resume(returning: .success(try body()))
                } catch {
                    continuation.resume(returning: .failure(error))
                }
            }
        }
        return try result.get()
    }

    static func perform(_ body: @escaping @Sendable () -> Void) async {
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            NIOThreadPool.singleton.submit { _ in
                body()
                continuation.resume()
            }
        }
    }

    static func write(_ bytes: ByteBuffer, to file: CInt, _ path: String) throws(SnapshotFile.Failure) {
        var bytes = bytes
        while bytes.readableBytes > 0 {
            let count = bytes.withUnsafeReadableBytes { Glibc.write(file, $0.baseAddress, $0.count) }
            if count > 0 {
                bytes.moveReaderIndex(forwardBy: count)
            } else if count == 0 || errno != EINTR {
                throw failure("write", path)
            }
        }
    }

    /// Nothing at the file's end.
    static func read(upTo limit: Int, from file: CInt, _ path: String) throws(SnapshotFile.Failure) -> ByteBuffer {
        var buffer = ByteBuffer()
        var number: CInt = 0
        repeat {
            let count = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: limit) { space in
                let count = Glibc.read(file, space.baseAddress, limit)
                number = count < 0 ? errno : 0
                return max(count, 0)
            }
            if count > 0 { return buffer }
        } while number == EINTR
        guard number == 0 else { throw failure("read", path, number) }
        return buffer
    }

    static func failure(_ verb: String, _ path: String, _ number: CInt = errno) -> SnapshotFile.Failure {
        .disk("can't \(verb) \(path): \(String(cString: strerror(number)))")
    }
}
