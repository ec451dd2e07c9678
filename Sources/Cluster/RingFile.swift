// SPDX-License-Identifier: Apache-2.0

private import Crypto
private import FoundationEssentials
private import Glibc
package import HashRing

/// The ring document on disk, for memcached forgets. Written aside, synced and renamed, under a lock that the host's
/// workers share; read only if its checksum holds.
package struct RingFile: Sendable {
    package let directory: String

    private var path: String { directory + "/ring.json" }

    package init(directory: String) { self.directory = directory }

    package struct Failure: Error, Sendable, CustomStringConvertible {
        package let description: String
    }

    /// On disk: the document's exact text and the SHA-256 of it.
    private struct Sealed: Codable {
        let sha256: String
        let document: String
    }

    /// Nil where there is no file. A file that is torn, or not ours, is a failure: never half a ring.
    package func load() throws(Failure) -> RingDocument? {
        guard let bytes = try contents(of: path) else { return nil }
        guard let sealed = try? JSONDecoder().decode(Sealed.self, from: Data(bytes)),
            RingFile.digest(sealed.document) == sealed.sha256,
            let document = try? JSONDecoder().decode(RingDocument.self, from: Data(sealed.document.utf8))
        else { throw Failure(description: "\(path) is damaged") }
        return document
    }

    /// Finds out whether the document could be kept, before anybody relies on it.
    package func rehearse(_ document: RingDocument) throws(Failure) {
        let lock = try lock()
        defer { close(lock) }
        try write(try RingFile.sealed(document), to: path + ".new")
    }

    /// Keeps the document unless the file has a newer one. When this returns, it survives a power cut.
    package func save(_ document: RingDocument) throws(Failure) {
        let lock = try lock()
        defer { close(lock) }
        if let kept = try? load(), kept.epoch >= document.epoch { return }
        try write(try RingFile.sealed(document), to: path + ".new")
        guard rename(path + ".new", path) == 0 else { throw RingFile.failure("rename", path) }
        let folder = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else { throw RingFile.failure("open", directory) }
        defer { close(folder) }
        guard fsync(folder) == 0 else { throw RingFile.failure("sync", directory) }
    }

    /// Held until the descriptor is closed.
    private func lock() throws(Failure) -> CInt {
        let lock = open(directory + "/ring.lock", O_CREAT | O_RDWR | O_CLOEXEC, 0o600)
        guard lock >= 0 else { throw RingFile.failure("open", directory + "/ring.lock") }
        guard flock(lock, LOCK_EX) == 0 else {
            close(lock)
            throw RingFile.failure("lock", directory + "/ring.lock")
        }
        return lock
    }

    private static func sealed(_ document: RingDocument) throws(Failure) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        guard let json = try? encoder.encode(document) else { throw Failure(description: "can't encode the ring") }
        let text = String(decoding: json, as: UTF8.self)
        guard let bytes = try? encoder.encode(Sealed(sha256: RingFile.digest(text), document: text)) else {
            throw Failure(description: "can't encode the ring")
        }
        return Array(bytes)
    }

    private func write(_ bytes: [UInt8], to path: String) throws(Failure) {
        let file = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw RingFile.failure("open", path) }
        defer { close(file) }
        var offset = 0
        while offset < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.write(file, $0.baseAddress?.advanced(by: offset), $0.count - offset)
            }
            guard count > 0 else { throw RingFile.failure("write", path) }
            offset += count
        }
        guard fsync(file) == 0 else { throw RingFile.failure("sync", path) }
    }

    private func contents(of path: String) throws(Failure) -> [UInt8]? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else {
            if errno == ENOENT { return nil }
            throw RingFile.failure("open", path)
        }
        defer { close(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = read(file, &chunk, chunk.count)
            guard count >= 0 else { throw RingFile.failure("read", path) }
            if count == 0 { return bytes }
            bytes += chunk[..<count]
        }
    }

    private static func failure(_ verb: String, _ path: String) -> Failure {
        Failure(description: "can't \(verb) \(path): \(String(cString: strerror(errno)))")
    }

    private static func digest(_ text: String) -> String {
        SHA256.hash(data: Array(text.utf8)).map { byte in
            let digits = String(byte, radix: 16)
            return digits.utf8.count == 1 ? "0" + digits : digits
        }.joined()
    }
}
