// SPDX-License-Identifier: Apache-2.0

internal import Control
private import Glibc
internal import NIOCore

/// A backup on disk. While it is being written it is called `….partial`; it takes its name once it is whole and synced.
final class BackupFile {
    let path: String
    private let descriptor: CInt

    private static let pieceBytes = 1 << 20

    /// For reading.
    init(reading path: String) throws {
        self.path = path
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw BackupFile.failure("can't open \(path)") }
    }

    /// For writing, what is there included. One writes at a time.
    init(writing path: String) throws {
        self.path = path
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw BackupFile.failure("can't write \(path)") }
        // (One that was whole just now has taken its name: what was opened here is that.)
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0, isStillAtItsPath else {
            throw Failure(.refused, "another kvctl writes \(path)")
        }
    }

    private var isStillAtItsPath: Bool {
        var (opened, named) = (stat(), stat())
        return fstat(descriptor, &opened) == 0 && stat(path, &named) == 0
            && (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)
    }

    deinit { close(descriptor) }

    var size: Int {
        var found = stat()
        return fstat(descriptor, &found) == 0 ? Int(found.st_size) : 0
    }

    /// Hands over each part whose seal holds, from the beginning.
    /// - Returns: what was read; not whole where the file ends too early.
    func read(_ take: (BackupPart, BackupDecoder) async throws -> Void) async throws -> BackupDecoder {
        var decoder = BackupDecoder()
        var buffer = ByteBuffer()
        var offset = 0
        while true {
            do {
                while let part = try decoder.next(&buffer) { try await take(part, decoder) }
            } catch let error as BackupError {
                throw Failure(.refused, "\(path): \(error)")
            }
            buffer.discardReadBytes()
            var error: CInt = 0
            let count = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: BackupFile.pieceBytes) {
                let count = pread(descriptor, $0.baseAddress, $0.count, off_t(offset))
                if count < 0 { error = errno }
                return max(count, 0)
            }
            if error == EINTR { continue }
            guard error == 0 else {
                throw Failure(.refused, "can't read \(path): \(String(cString: strerror(error)))")
            }
            guard count > 0 else { return decoder }
            offset += count
        }
    }

    /// The sum of a file that is whole; otherwise what is wrong with it.
    func verify(_ progress: (Int) throws -> Void = { _ in }) async throws -> (header: BackupHeader, sum: BackupSum) {
        var header: BackupHeader?
        let decoder = try await read { part, decoder in
            if case .header(let found) = part { header = found }
            try progress(decoder.wholeBytes)
        }
        guard decoder.isWhole, let header else {
            throw Failure(
                .refused,
                "\(path): it ends too early, behind \(decoder.sum.pairs) pairs that are whole; "
                    + "an interrupted backup goes on with `kvctl backup --resume`")
        }
        return (header, decoder.sum)
    }

    /// Cuts off what is behind that, and writes there from now on.
    func cut(at offset: Int) throws {
        guard ftruncate(descriptor, off_t(offset)) == 0, lseek(descriptor, off_t(offset), SEEK_SET) == off_t(offset)
        else {
            throw BackupFile.failure("can't write \(path)")
        }
    }

    /// Writes and syncs.
    func append(_ bytes: ByteBuffer) throws {
        var rest = bytes
        while rest.readableBytes > 0 {
            let count = rest.withUnsafeReadableBytes { write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw BackupFile.failure("can't write \(path)") }
            rest.moveReaderIndex(forwardBy: count)
        }
        guard fsync(descriptor) == 0 else { throw BackupFile.failure("can't sync \(path)") }
    }

    /// The file takes its name, and the directory is synced.
    func rename(to name: String) throws {
        guard Glibc.rename(path, name) == 0 else { throw BackupFile.failure("can't rename \(path)") }
        let parent = name.contains("/") ? String(name[..<(name.lastIndex(of: "/") ?? name.startIndex)]) : "."
        let directory = open(parent.isEmpty ? "/" : parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw BackupFile.failure("can't open \(parent)") }
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw BackupFile.failure("can't sync \(parent)") }
    }

    private static func failure(_ what: String) -> Failure {
        Failure(.refused, "\(what): \(String(cString: strerror(errno)))")
    }
}
