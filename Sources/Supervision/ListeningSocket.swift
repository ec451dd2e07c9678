// SPDX-License-Identifier: Apache-2.0

private import Glibc
package import HashRing

/// The socket on which all workers of this node accept. The supervisor owns it, so that no worker's death closes it.
package struct ListeningSocket: ~Copyable {
    package let descriptor: Int32

    private static let backlog: Int32 = 4096
    /// Numbers from here on can't collide with those that a worker's descriptors get.
    static let lowestDescriptor: Int32 = 10

    package init(_ node: NodeID) throws(SystemError) {
        let family = node.host.contains(":") ? AF_INET6 : AF_INET
        let opened = socket(family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard opened >= 0 else { throw SystemError("can't make a socket") }
        defer { close(opened) }
        let descriptor = fcntl(opened, F_DUPFD_CLOEXEC, ListeningSocket.lowestDescriptor)
        guard descriptor >= 0 else { throw SystemError("can't make a socket") }
        var on: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        guard ListeningSocket.bind(descriptor, family, node) == 0, listen(descriptor, ListeningSocket.backlog) == 0
        else {
            let error = SystemError("can't listen on \(node)")
            close(descriptor)
            throw error
        }
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    private static func bind(_ descriptor: Int32, _ family: Int32, _ node: NodeID) -> Int32 {
        if family == AF_INET6 {
            var address = sockaddr_in6()
            address.sin6_family = sa_family_t(family)
            address.sin6_port = node.port.bigEndian
            inet_pton(family, node.host, &address.sin6_addr)
            return bind(descriptor, &address)
        }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(family)
        address.sin_port = node.port.bigEndian
        inet_pton(family, node.host, &address.sin_addr)
        return bind(descriptor, &address)
    }

    private static func bind<Address>(_ descriptor: Int32, _ address: inout Address) -> Int32 {
        withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                Glibc.bind(descriptor, pointer, socklen_t(MemoryLayout<Address>.size))
            }
        }
    }
}

/// A system call that failed, and what for.
package struct SystemError: Error, Sendable, CustomStringConvertible {
    package let code: Int32
    package let description: String

    /// Takes `errno` along.
    package init(_ text: String, code: Int32 = errno) {
        self.code = code
        self.description = "\(text): \(String(cString: strerror(code)))"
    }

    package var isAddressInUse: Bool { code == EADDRINUSE }
}
