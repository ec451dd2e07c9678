// SPDX-License-Identifier: Apache-2.0

private import Glibc
private import Memcached

/// Tells systemd how the service is, by the protocol of sd_notify(3): one datagram to the unix socket that
/// `NOTIFY_SOCKET` names. Without one, says nothing.
package struct SystemdNotifier: Sendable {
    /// Variables that are for this process alone; its children must not have them.
    package static let variables = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"]

    package enum State: Hashable, Sendable {
        case ready
        /// Followed by `ready` once it is over.
        case reloading
        case stopping
        case watchdog
        case status(String)
    }

    private let path: String?
    /// How often systemd wants to hear `watchdog`: half of what it tolerates. Nil where it does not ask.
    package let watchdogMilliseconds: Int64?

    package init(environment: [String: String], processID: Int32) {
        path = environment["NOTIFY_SOCKET"].flatMap { $0.isEmpty ? nil : $0 }
        let isForUs = environment["WATCHDOG_PID"].map { $0 == String(processID) } ?? true
        let microseconds = environment["WATCHDOG_USEC"].flatMap { Int64($0) } ?? 0
        watchdogMilliseconds = isForUs && microseconds > 0 ? max(microseconds / 2000, 1) : nil
    }

    package func send(_ state: State) {
        guard let path, var address = SystemdNotifier.address(path) else { return }
        let socket = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        guard socket >= 0 else { return }
        defer { close(socket) }
        let text = Array(SystemdNotifier.text(of: state).utf8)
        // A service that nobody listens to runs on all the same.
        _ = withUnsafePointer(to: &address.address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                sendto(socket, text, text.count, Int32(MSG_NOSIGNAL), pointer, address.length)
            }
        }
    }

    static func text(of state: State) -> String {
        switch state {
        case .ready: "READY=1"
        case .reloading: "RELOADING=1\nMONOTONIC_USEC=\(MonotonicClock.microseconds())"
        case .stopping: "STOPPING=1"
        case .watchdog: "WATCHDOG=1"
        case .status(let text): "STATUS=" + text.replacing("\n", with: " ")
        }
    }

    /// A path, or with `@` in front a name in the kernel's abstract namespace, whose address begins with a zero byte
    /// and is as long as the name.
    private static func address(_ path: String) -> (address: sockaddr_un, length: socklen_t)? {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var bytes = Array(path.utf8)
        let isAbstract = bytes.first == UInt8(ascii: "@")
        if isAbstract { bytes[0] = 0 }
        let fits = withUnsafeMutableBytes(of: &address.sun_path) { target in
            guard bytes.count < target.count else { return false }
            target.copyBytes(from: bytes)
            return true
        }
        guard fits else { return nil }
        let length = MemoryLayout<sa_family_t>.size + bytes.count + (isAbstract ? 0 : 1)
        return (address, socklen_t(length))
    }
}
