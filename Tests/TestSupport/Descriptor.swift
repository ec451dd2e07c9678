// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Synchronization

/// An open file descriptor, closed once, by whoever comes first. Reading and writing block.
package final class Descriptor: Sendable {
    package struct Failure: Error, CustomStringConvertible {
        package let call: String
        package let number: Int32

        package var description: String { "\(call): \(String(cString: strerror(number)))" }
    }

    private let number: Mutex<Int32>

    init(_ number: Int32) { self.number = Mutex(number) }

    deinit { close() }

    /// -1 once it is closed.
    var raw: Int32 { number.withLock { $0 } }

    package func close() {
        let raw = number.withLock { number in
            defer { number = -1 }
            return number
        }
        if raw >= 0 { _ = Glibc.close(raw) }
    }

    /// Wakes whoever reads or writes here; a later `close` frees the number.
    func shutDown() {
        number.withLock { if $0 >= 0 { _ = Glibc.shutdown($0, Int32(SHUT_RDWR)) } }
    }

    /// Up to `limit` bytes; none at the end of the stream, nil after an error or where the time is up.
    func read(limit: Int = 65536) -> [UInt8]? {
        let raw = raw
        guard raw >= 0 else { return nil }
        return withUnsafeTemporaryAllocation(byteCount: limit, alignment: 1) { space -> [UInt8]? in
            while true {
                let count = Glibc.read(raw, space.baseAddress, limit)
                if count >= 0 { return Array(space[..<count]) }
                guard errno == EINTR else { return nil }
            }
        }
    }

    /// False where the other side is gone.
    @discardableResult
    func write(_ bytes: some Collection<UInt8>) -> Bool {
        let bytes = Array(bytes)
        let raw = raw
        guard raw >= 0 else { return false }
        var start = 0
        while start < bytes.count {
            let count = bytes[start...].withUnsafeBytes {
                Glibc.send(raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count < 0 {
                guard errno == EINTR else { return false }
                continue
            }
            start += count
        }
        return true
    }

    func closeOnExec() { _ = fcntl(raw, F_SETFD, FD_CLOEXEC) }

    // MARK: Unix sockets

    static func unixSocket() throws -> Descriptor {
        let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { throw Failure(call: "socket", number: errno) }
        return Descriptor(raw)
    }

    func listen(at path: String) throws {
        guard Descriptor.withAddress(path, { bind(raw, $0, $1) }) == 0 else {
            throw Failure(call: "bind", number: errno)
        }
        guard Glibc.listen(raw, 64) == 0 else { throw Failure(call: "listen", number: errno) }
    }

    func connect(to path: String) throws {
        guard Descriptor.withAddress(path, { Glibc.connect(raw, $0, $1) }) == 0 else {
            throw Failure(call: "connect", number: errno)
        }
    }

    /// Nil once this one is shut down.
    func accept() -> Descriptor? {
        while true {
            let connection = Glibc.accept(raw, nil, nil)
            if connection >= 0 {
                let descriptor = Descriptor(connection)
                descriptor.closeOnExec()
                return descriptor
            }
            guard errno == EINTR || errno == ECONNABORTED else { return nil }
        }
    }

    /// How long a read may wait before it fails.
    func setReadTimeout(milliseconds: Int) {
        var time = timeval(tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000)
        setsockopt(raw, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    }

    private static func withAddress<R>(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { space in
            precondition(path.utf8.count < space.count, "a unix socket's path is at most 107 bytes")
            space.copyBytes(from: path.utf8)
        }
        return withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
