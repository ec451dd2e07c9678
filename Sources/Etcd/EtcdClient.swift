// SPDX-License-Identifier: Apache-2.0

private import AsyncHTTPClient
private import FoundationEssentials
private import Glibc
package import NIOCore
private import NIOHTTP1
private import NIOPosix
private import Synchronization

/// etcd by its JSON gateway. Asks the member that answered last, and the next one where that one does not answer; a
/// request may therefore reach two of them.
package final class EtcdClient: EtcdCalls, Sendable {
    private static let connectTime = TimeAmount.milliseconds(500)
    /// What one member is given to answer; while its cluster elects a leader, none does.
    private static let attemptTime = TimeAmount.milliseconds(1000)
    private static let pauseBetweenRounds = Duration.milliseconds(100)
    /// Well above what etcd stores under one key (1.5 MiB).
    private static let answerBytes = 8 << 20

    private let http: HTTPClient
    private let endpoints: [EtcdEndpoint]
    /// The index of the member that answered last.
    private let preferred = Mutex(0)

    package init(_ endpoints: [EtcdEndpoint], loop: any EventLoop) {
        precondition(!endpoints.isEmpty, "the configuration names one at least")
        var configuration = HTTPClient.Configuration(
            redirectConfiguration: .disallow, timeout: .init(connect: EtcdClient.connectTime))
        configuration.httpVersion = .http1Only
        // The next member is tried instead.
        configuration.connectionPool.retryConnectionEstablishment = false
        self.http = HTTPClient(eventLoopGroupProvider: .shared(loop), configuration: configuration)
        self.endpoints = endpoints
    }

    package func shutDown() async { try? await http.shutdown() }

    // MARK: Calls

    package func transact(
        _ transaction: EtcdTransaction, within time: Duration
    ) async throws(EtcdError) -> EtcdTransactionAnswer {
        try await call("/v3/kv/txn", transaction, within: time)
    }

    package func grantLease(seconds: Int64, within time: Duration) async throws(EtcdError) -> Int64 {
        let granted: EtcdLease.Granted = try await call(
            "/v3/lease/grant", EtcdLease.Grant(seconds: EtcdNumber(seconds)), within: time)
        return granted.id
    }

    package func keepAlive(lease: Int64, within time: Duration) async throws(EtcdError) -> Bool {
        let answer: EtcdLease.KeptAlive = try await call(
            "/v3/lease/keepalive", EtcdLease.Named(id: EtcdNumber(lease)), within: time)
        return answer.seconds > 0
    }

    package func revoke(lease: Int64, within time: Duration) async throws(EtcdError) {
        let _: EtcdLease.Nothing = try await call(
            "/v3/lease/revoke", EtcdLease.Named(id: EtcdNumber(lease)), within: time)
    }

    /// Hands over the key's changes as they come, from that revision on, for so long.
    package func watch(
        _ key: String, from revision: Int64, for time: Duration,
        _ heard: @escaping @Sendable (EtcdPair) async throws -> Void
    ) async throws {
        let index = preferred.withLock { $0 }
        do {
            try await watch(endpoints[index], EtcdWatchRequest(key: key, revision: revision), for: time, heard)
        } catch {
            prefer(after: index)
            throw error
        }
    }

    private func watch(
        _ endpoint: EtcdEndpoint, _ watch: EtcdWatchRequest, for time: Duration,
        _ heard: @escaping @Sendable (EtcdPair) async throws -> Void
    ) async throws {
        var request = HTTPClientRequest(url: "\(endpoint)/v3/watch")
        request.method = .POST
        request.headers.add(name: "Content-Type", value: "application/json")
        request.body = .bytes(Array(try JSONEncoder().encode(watch)))
        let (http, ready) = (http, request)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                let response = try await http.execute(ready, timeout: EtcdClient.attemptTime)
                guard response.status == .ok else { throw EtcdError.refused("\(response.status) to a watch") }
                var stream = EtcdWatchStream(lineLimit: EtcdClient.answerBytes)
                for try await bytes in response.body {
                    for pair in try stream.received(bytes) { try await heard(pair) }
                }
            }
            // A connection whose other end is gone without a word must not be listened to for ever.
            group.addTask { try await Task.sleep(for: time) }
            defer { group.cancelAll() }
            try await group.next()
        }
    }

    // MARK: Members

    private enum Attempt<Answer> {
        case answered(Answer)
        case failed(reason: String, mayBeDone: Bool)
    }

    private func call<Answer: Decodable & Sendable>(
        _ path: String, _ request: some Encodable, within time: Duration
    ) async throws(EtcdError) -> Answer {
        let body: Data
        do {
            body = try JSONEncoder().encode(request)
        } catch {
            preconditionFailure("a request holds nothing that JSON can't say: \(error)")
        }
        let deadline = NIODeadline.now() + TimeAmount(time)
        var mayBeDone = false
        while true {
            var reason = ""
            let first = preferred.withLock { $0 }
            for index in (0..<endpoints.count).map({ (first + $0) % endpoints.count }) {
                let attempt: Attempt<Answer> = try await ask(endpoints[index], path, body, deadline)
                switch attempt {
                case .answered(let answer):
                    preferred.withLock { $0 = index }
                    return answer
                case .failed(let why, let reached):
                    mayBeDone = mayBeDone || reached
                    reason += "\(reason.isEmpty ? "" : ", ")\(endpoints[index]): \(why)"
                }
                if deadline <= .now() { break }
            }
            guard deadline > .now() + TimeAmount(EtcdClient.pauseBetweenRounds),
                (try? await Task.sleep(for: EtcdClient.pauseBetweenRounds)) != nil
            else { throw .unreachable(reason: reason, mayBeDone: mayBeDone) }
        }
    }

    private func prefer(after index: Int) {
        preferred.withLock { if $0 == index { $0 = (index + 1) % endpoints.count } }
    }

    /// One request to one member. (By way of a future, which goes on though the task was cancelled: a worker that
    /// leaves still gives its lease back.)
    private func ask<Answer: Decodable & Sendable>(
        _ endpoint: EtcdEndpoint, _ path: String, _ body: Data, _ deadline: NIODeadline
    ) async throws(EtcdError) -> Attempt<Answer> {
        let response: HTTPClient.Response
        do {
            let request = try HTTPClient.Request(
                url: endpoint.description + path, method: .POST, headers: ["Content-Type": "application/json"],
                body: .byteBuffer(ByteBuffer(bytes: body)))
            let collector = ResponseAccumulator(request: request, maxBodySize: EtcdClient.answerBytes)
            response = try await http.execute(
                request: request, delegate: collector, deadline: min(deadline, .now() + EtcdClient.attemptTime)
            ).futureResult.get()
        } catch {
            return .failed(reason: EtcdClient.reason(error), mayBeDone: !EtcdClient.isUnsent(error))
        }
        let data = Data(response.body?.readableBytesView ?? ByteBuffer().readableBytesView)
        if response.status == .ok {
            do {
                return .answered(try JSONDecoder().decode(Answer.self, from: data))
            } catch {
                throw .unreadable("\(error)")
            }
        }
        let refusal = try? JSONDecoder().decode(EtcdRefusal.self, from: data)
        let text = refusal?.error ?? "\(response.status)"
        // That it has no leader, or that its leader does not answer: another one may know more.
        if (500...).contains(response.status.code) { return .failed(reason: text, mayBeDone: true) }
        throw .refused(text)
    }

    private static func isUnsent(_ error: any Error) -> Bool {
        switch error {
        case is NIOConnectionError: true
        case let error as HTTPClientError: error == .connectTimeout
        case let error as IOError: error.errnoCode == ECONNREFUSED
        default: false
        }
    }

    private static func reason(_ error: any Error) -> String {
        switch error {
        case let error as HTTPClientError where error == .connectTimeout || error == .deadlineExceeded:
            "it does not answer"
        case let error as NIOConnectionError: error.connectionErrors.first.map { reason($0.error) } ?? "\(error)"
        case let error as IOError where error.errnoCode == ECONNREFUSED: "connection refused"
        default: "\(error)"
        }
    }
}
