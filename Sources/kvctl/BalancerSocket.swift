// SPDX-License-Identifier: Apache-2.0

internal import Control
private import Glibc

/// HAProxy's admin socket: a connection a command, as it closes each after its answer.
struct BalancerSocket: Sendable {
    let path: String

    private static let answerSeconds = 5
    /// Ten thousand ranges, and servers by the thousand.
    private static let answerBytes = 16 << 20

    /// - Parameter line: one command, without its line's end; a payload begins in the next line.
    /// - Returns: what it answered, without the line ends around it.
    func send(_ line: String) throws -> String {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw failure("no socket") }
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let room = MemoryLayout.size(ofValue: address.sun_path)
        guard path.utf8.count < room else {
            throw Failure(.refused, "the path of HAProxy's socket is too long: \(path)")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        var limit = timeval(tv_sec: BalancerSocket.answerSeconds, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        let connected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard connected == 0 else { throw failure("HAProxy does not listen at \(path)") }
        let command = Array((line + "\n").utf8)
        var sent = 0
        while sent < command.count {
            let count = command[sent...].withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failure("HAProxy takes no command at \(path)") }
            sent += count
        }
        var answer: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = part.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
            if count == 0 { break }
            if count < 0 {
                if errno == EINTR { continue }
                throw failure("HAProxy does not answer at \(path)")
            }
            answer += part[..<count]
            guard answer.count <= BalancerSocket.answerBytes else {
                throw Failure(.refused, "HAProxy answers without an end")
            }
        }
        while answer.last == UInt8(ascii: "\n") { answer.removeLast() }
        return String(decoding: answer.drop { $0 == UInt8(ascii: "\n") }, as: UTF8.self)
    }

    private func failure(_ what: String) -> Failure {
        Failure(.unavailable, "\(what): \(String(cString: strerror(errno)))")
    }
}
