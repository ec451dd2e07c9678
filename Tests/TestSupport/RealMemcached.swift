// SPDX-License-Identifier: Apache-2.0

private import Foundation
private import Glibc
private import Synchronization

/// A memcached on a unix socket of its own, started as the store starts it (deploy/run-memcached.sh). It runs until it
/// is let go, or until this process ends, however that ends.
package final class RealMemcached: Sendable {
    package struct DidNotStart: Error {}

    package let path: String
    private let directory: TemporaryDirectory
    private let arguments: [String]
    private let process = Mutex<OwnedProcess?>(nil)

    /// Runs `body` with a memcached that has just been started, and ends it afterwards.
    package static func run<Result>(
        megabytes: Int = 64, _ body: (RealMemcached) async throws -> Result
    ) async throws -> Result {
        let memcached = try RealMemcached(megabytes: megabytes)
        defer { memcached.kill() }
        return try await body(memcached)
    }

    /// - Parameter megabytes: memory for pairs, at least 10.
    package init(megabytes: Int = 64) throws {
        directory = try TemporaryDirectory()
        path = directory.path + "/memcached.sock"
        let script = URL(fileURLWithPath: #filePath).appendingPathComponent("../../../deploy/run-memcached.sh")
            .standardized
        arguments = ["/bin/bash", script.path, "--socket", path, "--memory", String(megabytes), "--threads", "2"]
        try start()
    }

    package var pid: Int32? { process.withLock { $0?.pid } }

    /// Starts it (empty) and waits until it answers.
    package func start() throws {
        try process.withLock { process in
            guard process == nil else { return }
            process = try OwnedProcess(arguments)
        }
        for _ in 0..<500 {
            if let connection = try? PlainConnection(path: path),
                (try? connection.ask("version"))?.hasPrefix("VERSION") == true
            {
                return
            }
            usleep(10_000)
        }
        throw DidNotStart()
    }

    /// As `kill -9` does. Nothing if it is dead already.
    package func kill() {
        process.withLock { process in
            process?.end()
            process = nil
        }
    }

    package func restartEmpty() throws {
        kill()
        try start()
    }

    /// It hangs (SIGSTOP): its socket still takes connections and bytes. Returns once all its threads stand still.
    package func hang() {
        process.withLock { $0?.signal(SIGSTOP) }
        guard let pid else { return }
        for _ in 0..<1000 where !RealMemcached.isStopped(pid) { usleep(1000) }
    }

    private static func isStopped(_ pid: Int32) -> Bool {
        let tasks = "/proc/\(pid)/task"
        guard let threads = try? FileManager.default.contentsOfDirectory(atPath: tasks) else { return true }
        return threads.allSatisfy { thread in
            guard let stat = try? String(contentsOfFile: "\(tasks)/\(thread)/stat", encoding: .utf8) else {
                return true
            }
            return stat.split(separator: ")").last?.hasPrefix(" T") ?? true
        }
    }

    package func wake() { process.withLock { $0?.signal(SIGCONT) } }

    package func connect() throws -> PlainConnection { try PlainConnection(path: path) }
}
