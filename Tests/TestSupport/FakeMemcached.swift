// SPDX-License-Identifier: Apache-2.0

private import Foundation
private import Synchronization

/// A memcached that does what a script says: it speaks the text protocol over a real dictionary, and goes wrong where
/// it is told to. It keeps every command that it received.
package final class FakeMemcached: Sendable {
    private struct State {
        var store = FakeStore()
        var faults: [FakeFault] = []
        var commands: [FakeCommand] = []
        var connections: [Int: Descriptor] = [:]
        var connectionCount = 0
        var isEnding = false
    }

    /// A key that no test asks for, and its value.
    package static let strangerKey = "d0000:stranger"
    package static let strangerValue = "of the stranger"

    package let path: String
    private let directory: TemporaryDirectory
    private let listener: Descriptor
    private let state = Mutex(State())

    /// Runs `body` with a fake memcached, and ends it afterwards.
    package static func run<Result>(_ body: (FakeMemcached) async throws -> Result) async throws -> Result {
        let fake = try FakeMemcached()
        defer { fake.end() }
        return try await body(fake)
    }

    package init() throws {
        directory = try TemporaryDirectory()
        path = directory.path + "/fake.sock"
        listener = try Descriptor.unixSocket()
        try listener.listen(at: path)
        let listener = listener
        Thread.detachNewThread { [weak self] in
            while let connection = listener.accept() {
                guard let self else { return }
                self.begin(connection)
            }
        }
    }

    deinit { end() }

    package func end() {
        let connections = state.withLock { state in
            state.isEnding = true
            return Array(state.connections.values)
        }
        listener.shutDown()
        for connection in connections { connection.shutDown() }
    }

    /// As after `kill -9` and a new start: no connection lives on, nothing is held, and tokens begin anew.
    package func restartEmpty() {
        let connections = state.withLock { state in
            state.store = FakeStore()
            return Array(state.connections.values)
        }
        for connection in connections { connection.shutDown() }
    }

    // MARK: Script and questions

    package func inject(_ fault: FakeFault) { state.withLock { $0.faults.append(fault) } }

    package func injectNothing() { state.withLock { $0.faults.removeAll() } }

    package func setEvicts(_ evicts: Bool) { state.withLock { $0.store.evicts = evicts } }

    /// Stores as if another client had done it.
    package func put(_ key: String, _ value: [UInt8]) { state.withLock { $0.store.put(key, value) } }

    /// What is stored under the key.
    package func value(_ key: String) -> [UInt8]? { state.withLock { $0.store.items[key]?.value } }

    package var keys: Set<String> { state.withLock { Set($0.store.items.keys) } }

    /// All received so far, or since `forgetCommands`, in their order.
    package var commands: [FakeCommand] { state.withLock { $0.commands } }

    package func forgetCommands() { state.withLock { $0.commands.removeAll() } }

    /// How many connections there have been.
    package var connectionCount: Int { state.withLock { $0.connectionCount } }

    // MARK: One connection

    private func begin(_ connection: Descriptor) {
        let number: Int? = state.withLock { state in
            guard !state.isEnding else { return nil }
            state.connectionCount += 1
            state.connections[state.connectionCount] = connection
            return state.connectionCount
        }
        guard let number else { return connection.close() }
        Thread.detachNewThread { [weak self] in
            var buffer: [UInt8] = []
            var isSilent = false
            while let bytes = connection.read(), !bytes.isEmpty {
                if isSilent { continue }
                buffer += bytes
                while !isSilent, let command = FakeCommand.parse(&buffer, connection: number) {
                    switch self?.serve(command, on: connection) {
                    case .answered: break
                    case .silent: isSilent = true
                    case .closed, nil: connection.shutDown()
                    }
                }
            }
            self?.state.withLock { $0.connections[number] = nil }
            connection.close()
        }
    }

    private enum Served { case answered, silent, closed }

    private func serve(_ command: FakeCommand, on connection: Descriptor) -> Served {
        let (fault, answer) = state.withLock { state -> (FakeFault.Kind?, [UInt8]?) in
            state.commands.append(command)
            let fault = FakeMemcached.takeFault(&state.faults, command.name)
            if let fault, !fault.isPerformed { return (fault.kind, []) }
            if case .overtaken(let items) = fault?.kind { for (key, value) in items { state.store.put(key, value) } }
            if case .vanished(let key) = fault?.kind { state.store.remove(key) }
            return (fault?.kind, state.store.answer(command))
        }
        guard let answer else { return .closed }
        if command.isNoReply { return .answered }
        return send(answer, spoiltBy: fault, to: command, on: connection)
    }

    private static func takeFault(_ faults: inout [FakeFault], _ name: String) -> FakeFault? {
        guard let index = faults.firstIndex(where: { $0.command == name }) else { return nil }
        let fault = faults[index]
        if fault.skip > 0 {
            faults[index].skip -= 1
            return nil
        }
        faults[index].times -= 1
        if faults[index].times == 0 { faults.remove(at: index) }
        return fault
    }

    private func send(
        _ answer: [UInt8], spoiltBy fault: FakeFault.Kind?, to command: FakeCommand, on connection: Descriptor
    ) -> Served {
        switch fault {
        case nil, .overtaken, .vanished: connection.write(answer)
        case .late(let milliseconds):
            Thread.sleep(forTimeInterval: Double(milliseconds) / 1000)
            connection.write(answer)
        case .cut:
            connection.write(answer[..<(answer.count / 2)])
            return .closed
        case .garbage: connection.write([0, 255, 13, 10] + Array("VALUE what is this\r\n\r\n".utf8))
        case .stranger:
            let stranger =
                "VALUE \(FakeMemcached.strangerKey) 0 \(FakeMemcached.strangerValue.utf8.count) 4711\r\n"
                + FakeMemcached.strangerValue + "\r\n"
            let first = state.withLock {
                $0.store.valueBlock(command.keys.first ?? "", isWithToken: command.name == "gets")
            }
            connection.write(first.isEmpty ? answer + answer : Array(stranger.utf8) + answer.dropFirst(first.count))
        case .duplicate: connection.write(answer + answer)
        case .line(let line): connection.write(Array((line + "\r\n").utf8))
        case .drip:
            for byte in answer where !connection.write([byte]) { return .closed }
        case .silence: return .silent
        case .close: return .closed
        case .overlong:
            // One byte more before the last line's end than was announced.
            connection.write(answer.dropLast(7) + Array("x\r\nEND\r\n".utf8))
        }
        return .answered
    }
}
