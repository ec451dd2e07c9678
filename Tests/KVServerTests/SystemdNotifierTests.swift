// SPDX-License-Identifier: Apache-2.0

import Glibc
import Supervision
import Testing

/// A datagram socket in the abstract namespace, as systemd may have one.
private struct NotifySocket: ~Copyable {
    let name = "kvserver-test-\(getpid())-\(UInt32.random(in: .min ... .max))"
    private let descriptor: Int32

    init() throws {
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = [0] + Array(name.utf8)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count)
        let code = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, length) }
        }
        try #require(code == 0)
    }

    deinit { close(descriptor) }

    /// The next datagram; nil where none waits.
    func next() -> String? {
        var bytes = [UInt8](repeating: 0, count: 1024)
        let count = recv(descriptor, &bytes, bytes.count, Int32(MSG_DONTWAIT))
        return count >= 0 ? String(decoding: bytes[..<count], as: UTF8.self) : nil
    }
}

@Suite("What systemd is told")
struct SystemdNotifierTests {
    @Test("each state as a datagram of its own")
    func states() throws {
        let socket = try NotifySocket()
        let notifier = SystemdNotifier(environment: ["NOTIFY_SOCKET": "@" + socket.name], processID: 1)
        notifier.send(.ready)
        notifier.send(.status("two\nlines"))
        notifier.send(.stopping)
        notifier.send(.watchdog)
        notifier.send(.reloading)
        #expect(socket.next() == "READY=1")
        #expect(socket.next() == "STATUS=two lines")
        #expect(socket.next() == "STOPPING=1")
        #expect(socket.next() == "WATCHDOG=1")
        #expect(socket.next()?.hasPrefix("RELOADING=1\nMONOTONIC_USEC=") == true)
        #expect(socket.next() == nil)
    }

    @Test("nobody there, or no socket named: nothing happens")
    func nobody() {
        SystemdNotifier(environment: [:], processID: 1).send(.ready)
        SystemdNotifier(environment: ["NOTIFY_SOCKET": "/nowhere/notify"], processID: 1).send(.ready)
        SystemdNotifier(
            environment: ["NOTIFY_SOCKET": "/" + String(repeating: "x", count: 500)], processID: 1
        ).send(.ready)
    }

    @Test(
        "the watchdog is fed twice in its time, and only if it is meant for this process",
        arguments: [
            (["WATCHDOG_USEC": "10000000"], 5000), (["WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "7"], 5000),
            (["WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "8"], nil), (["WATCHDOG_USEC": "x"], nil), ([:], nil),
        ] as [([String: String], Int64?)])
    func watchdog(_ environment: [String: String], _ milliseconds: Int64?) {
        #expect(SystemdNotifier(environment: environment, processID: 7).watchdogMilliseconds == milliseconds)
    }
}
