// SPDX-License-Identifier: Apache-2.0

package import AccessControl
package import HashRing
package import NIOCore
private import NIOHTTP1
private import NIOPosix
private import RequestTracing
package import TransportSecurity

/// One connection to another node, one request at a time, kept alive in between. Belongs to one event loop.
package final class PeerConnection {
    /// A whole answer.
    package struct Answer: Sendable {
        package let status: Int
        package let body: ByteBuffer
        /// Whether the node says that the request had no effect.
        package let isNotApplied: Bool
    }

    /// Why there is no answer.
    package struct Failure: Error, Sendable {
        /// Whether the node may have got the request all the same.
        package let wasSent: Bool
        package let reason: String
        /// Whether it is that the other side does not know the secret.
        package var isUnproven = false
    }

    private let channel: any Channel
    private let node: NodeID
    private let exchange: Exchange
    /// Goes with the next request.
    private var proof: PeerProof?
    /// Called once the connection can't be used again.
    var onClose: () -> Void = {} {
        didSet { exchange.onClose = onClose }
    }

    private init(channel: any Channel, node: NodeID, exchange: Exchange) {
        self.channel = channel
        self.node = node
        self.exchange = exchange
    }

    /// Connects on the given loop; must be called on it. Where nodes have a secret, nothing is sent before the other
    /// side has proved that it knows it.
    /// - Parameters:
    ///   - tls: by which each side has to know the other besides, before the handshake; nil: plain text.
    ///   - timeout: of connecting; proving may take as long again.
    ///   - bodyLimit: of an answer, in bytes; until the other side has proved itself it is `PeerHandshake.helloBytes`.
    package static func connect(
        to node: NodeID, by door: PeerDoor, over tls: PeerTLS?, on loop: any EventLoop, timeout: TimeAmount,
        bodyLimit: Int,
        completion: @escaping (Result<PeerConnection, Failure>) -> Void
    ) {
        // (Also one that another node has told of.)
        guard door.allowed.contains(node) else {
            return completion(.failure(Failure(wasSent: false, reason: "\(node) is not where nodes may be (peers)")))
        }
        guard let entrance = door.entrance(of: node) else {
            return completion(.failure(Failure(wasSent: false, reason: "\(node) has no port for its peers")))
        }
        let address: SocketAddress
        do {
            address = try SocketAddress(ipAddress: entrance.host, port: Int(entrance.port))
        } catch {
            return completion(.failure(Failure(wasSent: false, reason: "\(error)")))
        }
        let exchange = Exchange(bodyLimit: door.secrets == nil ? bodyLimit : PeerHandshake.helloBytes)
        let bound = NIOLoopBound(exchange, eventLoop: loop)
        ClientBootstrap(group: loop)
            .connectTimeout(timeout)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try tls?.addCallerHandler(to: channel)
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(HTTPRequestEncoder())
                    try pipeline.addHandler(
                        ByteToMessageHandler(
                            HTTPResponseDecoder(
                                leftOverBytesStrategy: .dropBytes, informationalResponseStrategy: .forward)))
                    try pipeline.addHandler(bound.value)
                }
            }
            .connect(to: address)
            .assumeIsolated()
            .whenComplete { result in
                switch result {
                case .success(let channel):
                    let connection = PeerConnection(channel: channel, node: node, exchange: exchange)
                    connection.shakeHands(by: door, deadline: .now() + timeout, bodyLimit: bodyLimit, completion)
                case .failure(let error):
                    completion(.failure(Failure(wasSent: false, reason: "can't connect to \(node): \(error)")))
                }
            }
    }

    /// Has the other side prove itself; this side's own proof goes with the first request.
    private func shakeHands(
        by door: PeerDoor, deadline: NIODeadline, bodyLimit: Int,
        _ completion: @escaping (Result<PeerConnection, Failure>) -> Void
    ) {
        guard let secrets = door.secrets else { return completion(.success(self)) }
        let handshake = PeerCallerHandshake(secrets, caller: door.node, callee: node, nonce: PeerNonce())
        post(
            PeerHandshake.path, contentType: "application/json", body: ByteBuffer(bytes: handshake.hello.encoded),
            deadline: deadline
        ) { result in
            do throws(Failure) {
                let answer = try result.get()
                if answer.status == 200, let theirs = PeerHelloAnswer(answer.body.readableBytesView),
                    let proof = handshake.proof(after: theirs)
                {
                    self.proof = proof
                } else if answer.status != 404 || !door.isInsecure {
                    throw Failure(
                        wasSent: false, reason: "\(self.node) does not prove that it knows the peers' token",
                        isUnproven: true)
                }
                self.exchange.hasAnswered = false
                self.exchange.bodyLimit = bodyLimit
                completion(.success(self))
            } catch {
                self.close()
                completion(
                    .failure(Failure(wasSent: false, reason: error.reason, isUnproven: error.isUnproven)))
            }
        }
    }

    package var isUsable: Bool { exchange.isIdle && channel.isActive }
    /// Whether it has been of use before, however it is now.
    var hasAnswered: Bool { exchange.hasAnswered }

    package func close() { channel.close(promise: nil) }

    /// Sends one request; the answer, or the failure, comes on the loop. After the deadline the connection is closed.
    /// - Parameter requests: for which ones of clients, as `CarriedRequestField` says it.
    package func post(
        _ path: String, contentType: String, body: ByteBuffer, requests: String = "", deadline: NIODeadline,
        completion: @escaping (Result<Answer, Failure>) -> Void
    ) {
        guard isUsable else {
            return completion(.failure(Failure(wasSent: false, reason: "\(node) closed the connection")))
        }
        exchange.begin(completion)
        exchange.timeout = channel.eventLoop.assumeIsolated().scheduleTask(deadline: deadline) {
            self.exchange.fail("\(self.node) did not answer in time")
            self.channel.close(promise: nil)
        }
        var headers = HTTPHeaders()
        headers.add(name: "Host", value: node.description)
        headers.add(name: "Content-Type", value: contentType)
        headers.add(name: "Content-Length", value: String(body.readableBytes))
        if !requests.isEmpty { headers.add(name: CarriedRequest.field, value: requests) }
        if let proof {
            headers.add(name: PeerHandshake.field, value: proof.text)
            self.proof = nil
        }
        let head = HTTPRequestHead(version: .http1_1, method: .POST, uri: path, headers: headers)
        channel.write(HTTPClientRequestPart.head(head), promise: nil)
        channel.write(HTTPClientRequestPart.body(.byteBuffer(body)), promise: nil)
        channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
    }

    /// Collects one answer at a time.
    private final class Exchange: ChannelInboundHandler {
        typealias InboundIn = HTTPClientResponsePart

        private enum State {
            case idle
            case waiting((Result<Answer, Failure>) -> Void)
            case reading((Result<Answer, Failure>) -> Void, HTTPResponseHead, ByteBuffer)
            case closed
        }

        var bodyLimit: Int
        private var state = State.idle
        fileprivate(set) var hasAnswered = false
        var timeout: Scheduled<Void>?
        var onClose: () -> Void = {}

        init(bodyLimit: Int) { self.bodyLimit = bodyLimit }

        var isIdle: Bool {
            if case .idle = state { true } else { false }
        }

        func begin(_ completion: @escaping (Result<Answer, Failure>) -> Void) { state = .waiting(completion) }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch (unwrapInboundIn(data), state) {
            case (.head(let head), .waiting(let completion)):
                // (Nothing was asked that there could be an interim answer to; a stranger could send them for ever.)
                guard head.status.code >= 200 else {
                    fail("an interim answer, which nobody asked for")
                    context.close(promise: nil)
                    return
                }
                state = .reading(completion, head, ByteBuffer())
            case (.body(var part), .reading(let completion, let head, var body)):
                state = .idle
                if body.readableBytes + part.readableBytes > bodyLimit {
                    state = .reading(completion, head, body)
                    fail("the answer is larger than \(bodyLimit) bytes")
                    context.close(promise: nil)
                    return
                }
                if body.readableBytes == 0 { body = part } else { body.writeBuffer(&part) }
                state = .reading(completion, head, body)
            case (.end, .reading(let completion, let head, let body)):
                timeout?.cancel()
                hasAnswered = true
                state = .idle
                if !head.isKeepAlive {
                    state = .closed
                    context.close(promise: nil)
                }
                let isNotApplied = head.headers.first(name: "X-KV-Outcome") == "not-applied"
                completion(
                    .success(Answer(status: Int(head.status.code), body: body, isNotApplied: isNotApplied)))
            default:
                fail("an answer that nobody asked for")
                context.close(promise: nil)
            }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            fail("\(error)")
            context.close(promise: nil)
        }

        func channelInactive(context: ChannelHandlerContext) {
            fail("the connection was closed")
            onClose()
            onClose = {}
        }

        func fail(_ reason: String) {
            timeout?.cancel()
            let completion: ((Result<Answer, Failure>) -> Void)?
            switch state {
            case .waiting(let waiting): completion = waiting
            case .reading(let waiting, _, _): completion = waiting
            case .idle, .closed: completion = nil
            }
            state = .closed
            completion?(.failure(Failure(wasSent: true, reason: reason)))
        }
    }
}
