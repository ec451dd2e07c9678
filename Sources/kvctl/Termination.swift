// SPDX-License-Identifier: Apache-2.0

private import Dispatch
private import Glibc

/// How a command that would go on for ever is told to end.
enum Termination {
    /// Runs this until it ends, or is cancelled because the process is asked to end (SIGTERM, SIGINT): what it is just
    /// doing is then done to its end.
    static func cancelling(_ body: @escaping @Sendable () async -> Void) async {
        let (requests, request) = AsyncStream.makeStream(of: Void.self)
        let sources = [SIGTERM, SIGINT].map { number in
            // (By default the process would be gone before the source is told.)
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { request.yield() }
            source.resume()
            return source
        }
        defer { for source in sources { source.cancel() } }
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await body() }
            group.addTask { for await _ in requests { return } }
            await group.next()
            group.cancelAll()
        }
    }
}
