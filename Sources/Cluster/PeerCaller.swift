// SPDX-License-Identifier: Apache-2.0

package import AccessControl
private import FoundationEssentials
package import HashRing
package import KeyValue
package import NIOCore
package import TransportSecurity

/// Calls to other nodes for the control plane: JSON to `/peer/<name>`, and batches of a hand-off. Its connections are
/// kept alive and are not shared with clients' requests, which never wait behind them.
package struct PeerCaller: Sendable {
    /// Why a call has no answer.
    package enum Failure: Error, Sendable, CustomStringConvertible {
        case unreachable(NodeID, reason: String)
        /// Somebody answers there who does not know the peers' token; nothing was sent.
        case unproven(NodeID)
        case refused(NodeID, status: Int, text: String)
        /// The other side's ring differs from the sender's.
        case staleRing(NodeID, RingDocument?)

        package var description: String {
            switch self {
            case .unreachable(let node, let reason): "\(node) does not answer: \(reason)"
            case .unproven(let node): "\(node) does not prove that it knows the peers' token"
            case .refused(let node, let status, let text): "\(node) answered \(status): \(text)"
            case .staleRing(let node, let document):
                "\(node) stands on epoch \(document?.epoch ?? .none)"
            }
        }
    }

    private let loop: any EventLoop
    private let pool: NIOLoopBound<Pool>

    private static let connectTimeout = TimeAmount.milliseconds(500)

    /// Must be made on the loop.
    package init(loop: any EventLoop, door: PeerDoor, tls: PeerTLS? = nil) {
        self.loop = loop
        self.pool = NIOLoopBound(Pool(door, tls), eventLoop: loop)
    }

    /// Sends `request` to `/peer/<name>` and reads the answer.
    package func call<Request: Encodable & Sendable, Answer: Decodable & Sendable>(
        _ node: NodeID, _ name: String, _ request: Request, timeout: TimeAmount, as answer: Answer.Type = Answer.self
    ) async throws -> Answer {
        let body = ByteBuffer(bytes: try JSONEncoder().encode(request))
        let reply = try await post(node, "/peer/" + name, "application/json", body, timeout)
        guard reply.status == 200 else {
            throw Failure.refused(node, status: reply.status, text: String(buffer: reply.body))
        }
        do {
            return try JSONDecoder().decode(Answer.self, from: Data(reply.body.readableBytesView))
        } catch {
            throw Failure.refused(node, status: reply.status, text: "an answer that can't be read: \(error)")
        }
    }

    /// Asks for what a node has to list.
    package func list(
        _ node: NodeID, _ request: PeerMessage.ListRequest, timeout: TimeAmount
    ) async throws -> HostListingAnswer {
        let body = ByteBuffer(bytes: try JSONEncoder().encode(request))
        let reply = try await post(node, "/peer/list", "application/json", body, timeout, isCancellable: true)
        guard reply.status == 200 else {
            throw Failure.refused(node, status: reply.status, text: String(buffer: reply.body))
        }
        guard let answer = HostListingCodec.decode(reply.body) else {
            throw Failure.refused(node, status: reply.status, text: "a listing that can't be read")
        }
        return answer
    }

    /// Sends a batch of operations of a hand-off.
    package func batch(_ node: NodeID, _ batch: PeerBatch, timeout: TimeAmount) async throws -> PeerBatchAnswer {
        var body = ByteBuffer()
        PeerBatchCodec.encode(batch, into: &body)
        let reply = try await post(node, RemoteReplica.path, RemoteReplica.contentType, body, timeout)
        switch reply.status {
        case 200:
            var body = reply.body
            do {
                return try PeerBatchCodec.decodeAnswer(&body)
            } catch {
                throw Failure.refused(node, status: 200, text: "an answer that can't be read: \(error)")
            }
        case 409:
            let document = try? JSONDecoder().decode(RingDocument.self, from: Data(reply.body.readableBytesView))
            throw Failure.staleRing(node, document)
        default: throw Failure.refused(node, status: reply.status, text: String(buffer: reply.body))
        }
    }

    /// - Parameter isCancellable: whether a task that is cancelled does not wait for the answer. (Whoever asks for a
    ///   promise, say, has to hear that it was given, to give it back.)
    private func post(
        _ node: NodeID, _ path: String, _ contentType: String, _ body: ByteBuffer, _ timeout: TimeAmount,
        isCancellable: Bool = false
    ) async throws -> PeerConnection.Answer {
        let promise = loop.makePromise(of: PeerConnection.Answer.self)
        loop.execute {
            pool.value.post(node, path, contentType, body, deadline: .now() + timeout, on: loop) { result in
                switch result {
                case .success(let answer): promise.succeed(answer)
                case .failure(let failure):
                    promise.fail(
                        failure.isUnproven
                            ? Failure.unproven(node) : Failure.unreachable(node, reason: failure.reason))
                }
            }
        }
        guard isCancellable else { return try await promise.futureResult.get() }
        // (Of a promise the first word counts: what comes after a cancellation is for nobody.)
        return try await withTaskCancellationHandler {
            try await promise.futureResult.get()
        } onCancel: {
            promise.fail(CancellationError())
        }
    }

    /// Idle connections by node.
    private final class Pool {
        private var idle: [NodeID: [PeerConnection]] = [:]
        private let door: PeerDoor
        private let tls: PeerTLS?
        private static let idlePerNode = 8

        init(_ door: PeerDoor, _ tls: PeerTLS?) {
            self.door = door
            self.tls = tls
        }

        func post(
            _ node: NodeID, _ path: String, _ contentType: String, _ body: ByteBuffer, deadline: NIODeadline,
            on loop: any EventLoop,
            completion: @escaping (Result<PeerConnection.Answer, PeerConnection.Failure>) -> Void
        ) {
            while let connection = idle[node]?.popLast() {
                guard connection.isUsable else { continue }
                return send(connection, node, path, contentType, body, deadline, completion)
            }
            PeerConnection.connect(
                to: node, by: door, over: tls, on: loop, timeout: PeerCaller.connectTimeout,
                bodyLimit: Limits.peerBodyBytes
            ) { result in
                switch result {
                case .success(let connection):
                    self.send(connection, node, path, contentType, body, deadline, completion)
                case .failure(let failure): completion(.failure(failure))
                }
            }
        }

        private func send(
            _ connection: PeerConnection, _ node: NodeID, _ path: String, _ contentType: String, _ body: ByteBuffer,
            _ deadline: NIODeadline,
            _ completion: @escaping (Result<PeerConnection.Answer, PeerConnection.Failure>) -> Void
        ) {
            connection.post(path, contentType: contentType, body: body, deadline: deadline) { result in
                if connection.isUsable {
                    if self.idle[node, default: []].count < Pool.idlePerNode {
                        self.idle[node, default: []].append(connection)
                    } else {
                        connection.close()
                    }
                }
                completion(result)
            }
        }
    }
}
