// SPDX-License-Identifier: Apache-2.0

private import Glibc
private import KeyValue

/// The files of a host's append-only logs: `log.<16 hex digits>.<counter>`, the digits a worker's own, with `.new` or
/// `.open` behind it while the worker is at it. Who has a segment open holds a lock on it, so that all workers can tell
/// which of them nobody will write to any more.
package struct LogSegments: Sendable {
    enum Stage: String, CaseIterable {
        case new = ".new"
        case open = ".open"
        case closed = ""
    }

    package let directory: String
    private let room: @Sendable (_ directory: String) -> Room?

    /// Of a disk, in bytes.
    package struct Room: Sendable {
        package let free: Int
        package let total: Int

        package init(free: Int, total: Int) {
            self.free = free
            self.total = total
        }

        /// Nil where it can't be told.
        package static func system(_ directory: String) -> Room? {
            var status = statvfs()
            guard statvfs(directory, &status) == 0 else { return nil }
            return Room(
                free: Int(status.f_bavail) * Int(status.f_frsize), total: Int(status.f_blocks) * Int(status.f_frsize))
        }
    }

    /// - Parameter room: of the disk that a directory is on.
    package init(directory: String, room: @escaping @Sendable (String) -> Room? = { Room.system($0) }) {
        self.directory = directory
        self.room = room
    }

    /// Without its stage.
    static func name(writer: UInt64, number: Int) -> String {
        let digits = String(writer, radix: 16)
        return "log." + String(repeating: "0", count: 16 - digits.count) + digits + ".\(number)"
    }

    /// The name that a segment keeps, whatever becomes of it.
    static func withoutStage(_ name: String) -> String {
        Stage.allCases.first { $0 != .closed && name.hasSuffix($0.rawValue) }
            .map { String(name.dropLast($0.rawValue.count)) } ?? name
    }

    /// Nil where it is no segment's.
    static func stage(of name: String) -> Stage? {
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        guard (3...4).contains(parts.count), parts[0] == "log", parts[1].count == 16,
            parts[1].allSatisfy(\.isHexDigit), Int(parts[2]) != nil
        else { return nil }
        return Stage(rawValue: parts.count == 4 ? "." + parts[3] : "")
    }

    func path(_ name: String) -> String { directory + "/" + name }

    /// All there are, by name, in whatever stage.
    package func all() throws(SnapshotFile.Failure) -> [String] {
        guard let stream = opendir(directory) else { throw SnapshotDisk.failure("list", directory) }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if LogSegments.stage(of: name) != nil { names.append(name) }
        }
        return names.sorted()
    }

    /// Whether there are any. (A directory that can't be listed may have some.)
    package var exist: Bool { (try? all().isEmpty) != true }

    /// Those that nobody will write to any more: all that is in them was stored in memcached before this call.
    package func settled() throws(SnapshotFile.Failure) -> [String] {
        try all().filter { LogSegments.stage(of: $0) == .closed || isLeft($0) }
    }

    /// Whether a worker that was killed has left one: what it logged last may be in no file.
    package var hasOrphan: Bool {
        (try? all().contains { LogSegments.stage(of: $0) == .open && isLeft($0) }) ?? false
    }

    /// Those that are gone already, or can't be deleted, are left to the next one who comes by.
    package func remove(_ names: [String]) { for name in names { unlink(path(name)) } }

    /// How many there are, and the bytes of their files.
    package func sum() -> (count: Int, bytes: Int) {
        let names = (try? all()) ?? []
        return (names.count, names.reduce(0) { $0 + bytes(path($1)) })
    }

    /// Whether the disk still has room for the next snapshot, which cuts the log off. That is no larger than the
    /// present one and all that was logged since; what a snapshot that is being written has taken is there for it. And
    /// some more, for what workers take in until they look again.
    package var hasRoomForSnapshot: Bool {
        guard let room = room(directory) else { return true }
        let snapshot = SnapshotFile(directory: directory)
        let more = min(Limits.logSpareBytes, room.total / Limits.logSparePart)
        return room.free + bytes(snapshot.newPath) >= bytes(snapshot.path) + sum().bytes + more
    }

    private func bytes(_ path: String) -> Int {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_size) : 0
    }

    /// Whether no worker holds its lock.
    private func isLeft(_ name: String) -> Bool {
        let file = open(path(name), O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return false }
        defer { close(file) }
        return flock(file, LOCK_EX | LOCK_NB) == 0
    }
}
