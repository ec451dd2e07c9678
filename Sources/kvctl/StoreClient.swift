// SPDX-License-Identifier: Apache-2.0

private import ArgumentParser
internal import AsyncHTTPClient
internal import Control
private import FoundationEssentials
private import Glibc
internal import HashRing
internal import NIOCore
internal import NIOHTTP1
private import NIOPosix
internal import NIOSSL

/// Speaks HTTP with the store's nodes.
///
/// A request that changes something is sent once: whether it was done is for the caller to find out. One that changes
/// nothing is sent again, a few times, where it found nobody ready.
struct StoreClient: Sendable {
    /// A value, an answer that lists, an exported page with a chunk to spare.
    static let largestAnswerBytes = 96 << 20

    let entrance: NodeID
    /// How long an answer may take.
    let seconds: Double
    /// Values of the field `Authorization`; empty: there is no token to show.
    private let authorizations: [String]
    private let http: HTTPClient
    private let scheme: String

    private static let firstPause = Duration.milliseconds(200)
    private static let longestPause = Duration.seconds(5)

    static let usualConnections = 16

    /// Calls the body with a client that is shut down afterwards, and ends the process with the status of whatever
    /// went wrong.
    static func use(
        entrance: NodeID, seconds: Double, connections: Int = StoreClient.usualConnections, tokenFile: String?,
        ca: String?, _ body: (StoreClient) async throws -> Void
    ) async throws {
        let client: StoreClient
        do {
            client = StoreClient(
                entrance: entrance, seconds: seconds, connections: connections,
                authorizations: try ShownToken.authorizations(named: tokenFile),
                authority: try TrustedAuthority.certificates(named: ca))
        } catch {
            Console.error(error.message)
            throw ExitCode(error.outcome.exitStatus)
        }
        do {
            try await body(client)
        } catch let failure as Failure {
            await client.shutDown()
            if !failure.isSilent { Console.error(failure.message) }
            throw ExitCode(failure.outcome.exitStatus)
        } catch {
            await client.shutDown()
            throw error
        }
        await client.shutDown()
    }

    private init(
        entrance: NodeID, seconds: Double, connections: Int, authorizations: [String], authority: [NIOSSLCertificate]?
    ) {
        scheme = authority == nil ? "http" : "https"
        self.authorizations = authorizations
        self.entrance = entrance
        self.seconds = seconds
        var configuration = HTTPClient.Configuration(
            redirectConfiguration: .disallow, timeout: .init(connect: .milliseconds(Int64(min(seconds, 3) * 1000))))
        configuration.httpVersion = .http1Only
        if let authority {
            // (Of a node's name, which is an address, the certificate has to have that.)
            var tls = TLSConfiguration.makeClientConfiguration()
            tls.minimumTLSVersion = .tlsv12
            tls.trustRoots = .certificates(authority)
            configuration.tlsConfiguration = tls
        }
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = connections
        // (Sooner than nodes and the balancer do, so that none is used that the other side is closing.)
        configuration.connectionPool.idleTimeout = .seconds(5)
        // Whoever is tried again is tried by `call`.
        configuration.connectionPool.retryConnectionEstablishment = false
        http = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    private func shutDown() async { try? await http.shutdown() }

    struct Answer: Sendable {
        let status: Int
        let headers: HTTPHeaders
        let body: ByteBuffer

        var text: String { String(buffer: body) }

        /// As an `ETag` has it, without the quotation marks.
        var version: String? { headers.first(name: "ETag").map { $0.filter { $0 != "\"" } } }

        func outcome(changes: Bool) -> RequestOutcome {
            RequestOutcome(status: status, outcome: headers.first(name: "X-KV-Outcome"), changes: changes)
        }

        /// Decodes the body.
        func decoded<Value: Decodable>(_ type: Value.Type = Value.self) throws -> Value {
            do {
                return try JSONDecoder().decode(type, from: Data(body.readableBytesView))
            } catch {
                throw Failure(.refused, "an answer can't be read; is kvctl of another version than the nodes? \(error)")
            }
        }
    }

    /// One request.
    struct Request: Sendable {
        var method = HTTPMethod.GET
        /// With its query, percent-encoded.
        var target: String
        /// Who is asked; nil: the entrance.
        var node: NodeID? = nil
        var headers: [(String, String)] = []
        var body: ByteBuffer? = nil
        /// Whether it is the same to do it twice.
        var isRepeatable = true
        /// How long the answer may take; nil: as long as the client says.
        var seconds: Double? = nil
        /// How often it is sent where nobody is ready and it is the same to do it twice.
        var attempts = 4
    }

    /// The answer, whatever its status.
    func send(_ request: Request) async throws -> Answer {
        // (While a token is being changed, a node may know the newer one alone, or the older one. What it refuses for
        // that it has not done.)
        for authorization in authorizations.dropLast() {
            let answer = try await send(request, authorization)
            guard answer.status == 401 else { return answer }
        }
        return try await send(request, authorizations.last)
    }

    private func send(_ request: Request, _ authorization: String?) async throws -> Answer {
        let node = request.node ?? entrance
        var message = HTTPClientRequest(url: "\(scheme)://\(node)\(request.target)")
        message.method = request.method
        for (name, value) in request.headers { message.headers.add(name: name, value: value) }
        if let authorization { message.headers.add(name: "Authorization", value: authorization) }
        message.body = request.body.map { .bytes($0) }
        do {
            let time = TimeAmount.milliseconds(Int64((request.seconds ?? seconds) * 1000))
            let response = try await http.execute(message, deadline: .now() + time)
            return Answer(
                status: Int(response.status.code), headers: response.headers,
                body: try await response.body.collect(upTo: StoreClient.largestAnswerBytes))
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            throw failure(error, node, changes: !request.isRepeatable)
        }
    }

    /// The answer to a request for one pair, as `call`. A node says its version; who does not is no node.
    func pair(_ request: Request) async throws -> Answer {
        let answer = try await call(request)
        guard answer.version != nil else {
            let node = request.node ?? entrance
            throw Failure(.refused, "\(node) does not answer as the store does; is --node right?")
        }
        return answer
    }

    /// The answer, where it is a success; otherwise what went wrong. Asks again where nobody was ready and it does no
    /// harm.
    func call(_ request: Request) async throws -> Answer {
        var pause = StoreClient.firstPause
        for attempt in 1... {
            do {
                let answer = try await send(request)
                let outcome = answer.outcome(changes: !request.isRepeatable)
                guard outcome != .done else { return answer }
                throw Failure(outcome, StoreClient.reason(of: answer, at: request.node ?? entrance))
            } catch let failure as Failure {
                guard request.isRepeatable, failure.outcome == .unavailable, attempt < request.attempts else {
                    throw failure
                }
                try await Task.sleep(for: pause)
                pause = min(pause * 2, StoreClient.longestPause)
            }
        }
        preconditionFailure("the last attempt returns or throws")
    }

    private func failure(_ error: any Error, _ node: NodeID, changes: Bool) -> Failure {
        switch error as? HTTPClientError {
        case .connectTimeout?:
            return Failure(.unavailable, "\(node) can't be reached; see that it runs, or name another one by --node")
        case .deadlineExceeded?, .readTimeout?:
            return Failure(
                changes ? .unknown : .unavailable,
                "\(node) did not answer in time\(changes ? ", and what became of it is not known" : ""); see --timeout")
        default: break
        }
        if error is NIOConnectionError || (error as? IOError)?.errnoCode == ECONNREFUSED {
            return Failure(.unavailable, "\(node) can't be reached; see that it runs, or name another one by --node")
        }
        // (Before there is a connection nothing can have been done.)
        if let reason = TrustedAuthority.reason(of: error) {
            return Failure(.refused, "no TLS connection to \(node): \(reason)")
        }
        if scheme == "http", case .remoteConnectionClosed? = error as? HTTPClientError, !changes {
            return Failure(.unavailable, "\(node) broke off; if it speaks TLS, name its authority by --ca")
        }
        return Failure(
            changes ? .unknown : .unavailable,
            "\(node) broke off\(changes ? ", and what became of it is not known" : ""): \(error)")
    }

    /// The one line that an error's body has for people.
    static func reason(of answer: Answer, at node: NodeID) -> String {
        struct Problem: Decodable {
            let detail: String
        }
        let text =
            (try? JSONDecoder().decode(Problem.self, from: Data(answer.body.readableBytesView)))?.detail
            ?? String(answer.text.prefix(1000).split(whereSeparator: \.isNewline).joined(separator: " "))
        return text.isEmpty ? "\(node) answered \(answer.status)" : "\(text) (\(answer.status) from \(node))"
    }
}

extension StoreClient {
    /// The ring as a node, or whoever the balancer chose, knows it.
    func ring(of node: NodeID? = nil) async throws -> RingAnswer {
        let answer: RingAnswer = try await call(Request(target: "/hash_ring", node: node)).decoded()
        guard !answer.ring.ring.isEmpty else {
            throw Failure(.unavailable, "there is no ring yet: see deploy/reconfigure.sh")
        }
        return answer
    }

    func status(of node: NodeID?, seconds: Double? = nil) async throws -> NodeStatus {
        try await call(Request(target: "/status", node: node, seconds: seconds)).decoded()
    }

    /// Of all nodes of the ring and all that stand by, each its status or why there is none. Side by side.
    func statuses(of nodes: [NodeID], seconds: Double? = nil) async -> [(
        node: NodeID, status: Result<NodeStatus, Failure>
    )] {
        await withTaskGroup(of: (NodeID, Result<NodeStatus, Failure>).self) { group in
            for node in nodes {
                group.addTask {
                    do {
                        let answer = try await send(Request(target: "/status", node: node, seconds: seconds))
                        guard answer.status == 200 else {
                            return (node, .failure(Failure(.unavailable, StoreClient.reason(of: answer, at: node))))
                        }
                        return (node, .success(try answer.decoded()))
                    } catch let failure as Failure {
                        return (node, .failure(failure))
                    } catch {
                        return (node, .failure(Failure(.unavailable, "\(error)")))
                    }
                }
            }
            var found: [(node: NodeID, status: Result<NodeStatus, Failure>)] = []
            for await (node, status) in group { found.append((node, status)) }
            return found.sorted { $0.node < $1.node }
        }
    }
}
