// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// A plain connection to memcached for what libmemcached has no call for: dumps, and many deletes or stores in a row.
/// Used on one thread; every wait is bounded.
struct TextConnection: ~Copyable {
    private let descriptor: CInt
    private var buffer: [UInt8]
    private var timeoutMilliseconds = 0

    /// Connects; blocks for at most the timeout.
    /// - Parameter bufferBytes: how much is received at once.
    init(
        _ endpoint: MemcachedEndpoint, timeoutMilliseconds: Int, bufferBytes: Int = 256 << 10
    ) throws(MemcachedError) {
        let descriptor: CInt
        switch endpoint {
        case .unixSocket(let path): descriptor = try TextConnection.connect(path: path)
        case .tcp(let host, let port): descriptor = try TextConnection.connect(host: host, port: port)
        }
        self.descriptor = descriptor
        self.buffer = [UInt8](repeating: 0, count: bufferBytes)
        setTimeout(milliseconds: timeoutMilliseconds)
    }

    deinit { close(descriptor) }

    /// Bounds each wait from now on.
    mutating func setTimeout(milliseconds: Int) {
        guard milliseconds != timeoutMilliseconds else { return }
        timeoutMilliseconds = milliseconds
        var time = timeval(tv_sec: milliseconds / 1000, tv_usec: milliseconds % 1000 * 1000)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(descriptor, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size))
        }
    }

    mutating func send(_ bytes: some Sequence<UInt8>) throws(MemcachedError) {
        let bytes = Array(bytes)
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.send(
                    descriptor, $0.baseAddress?.advanced(by: sent), $0.count - sent,
                    CInt(truncatingIfNeeded: MSG_NOSIGNAL))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw TextConnection.failure("send") }
            sent += count
        }
    }

    /// Hands on whatever has come, at least one byte; the bytes are valid during the call.
    mutating func receive(_ body: (UnsafeRawBufferPointer) -> Void) throws(MemcachedError) {
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count < 0, errno == EINTR { continue }
            guard count != 0 else { throw .unavailable("memcached closed the connection") }
            guard count > 0 else { throw TextConnection.failure("receive") }
            buffer.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            return
        }
    }

    private static func failure(_ verb: String) -> MemcachedError {
        if errno == EAGAIN || errno == EWOULDBLOCK { return .timedOut }
        return .unavailable("\(verb): \(String(cString: strerror(errno)))")
    }

    private static func connect(path: String) throws(MemcachedError) -> CInt {
        let descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw failure("socket") }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
        // A full backlog must not block the thread: not blocking, a unix socket says EAGAIN at once.
        let flags = fcntl(descriptor, F_GETFL)
        _ = fcntl(descriptor, F_SETFL, flags | O_NONBLOCK)
        let code = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard code == 0 else {
            let error = failure(path)
            close(descriptor)
            throw error
        }
        _ = fcntl(descriptor, F_SETFL, flags)
        return descriptor
    }

    private static func connect(host: String, port: UInt16) throws(MemcachedError) -> CInt {
        var hints = addrinfo()
        hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, String(port), &hints, &list) == 0, let list else {
            throw .unavailable("\(host) is not known")
        }
        defer { freeaddrinfo(list) }
        var error = MemcachedError.unavailable("\(host):\(port)")
        for entry in sequence(first: list, next: { $0.pointee.ai_next }) {
            let descriptor = socket(
                entry.pointee.ai_family, entry.pointee.ai_socktype | CInt(SOCK_CLOEXEC.rawValue),
                entry.pointee.ai_protocol)
            guard descriptor >= 0 else { continue }
            // Bounds the connect, too.
            var time = timeval(tv_sec: 0, tv_usec: 500_000)
            setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
            if Glibc.connect(descriptor, entry.pointee.ai_addr, entry.pointee.ai_addrlen) == 0 { return descriptor }
            error = failure("\(host):\(port)")
            close(descriptor)
        }
        throw error
    }
}
