// SPDX-License-Identifier: Apache-2.0

import HashRing
import NIOCore
import NIOHTTP1
import NIOPosix

/// Another node as `RemoteReplica` sees it: an HTTP server on loopback that replies to requests, in the order in which
/// they come, as a script says; the script's last reply is repeated.
struct FakePeer: Sendable {
    struct Reply: Sendable {
        var status = 200
        var headers: [(String, String)] = []
        var body: [UInt8] = []
        var delay = TimeAmount.zero
        /// Closes the connection instead of replying.
        var hangsUp = false
    }

    let node: NodeID
    private let channel: any Channel
    private let script: NIOLoopBound<Script>

    /// - Parameter loop: what it runs on, as does the replica that asks it.
    static func start(_ replies: [Reply], on loop: any EventLoop) async throws -> FakePeer {
        let script = try await loop.submit { NIOLoopBound(Script(replies), eventLoop: loop) }.get()
        let channel = try await ServerBootstrap(group: loop)
            .childChannelInitializer { channel in
                channel.pipeline.configureHTTPServerPipeline().flatMapThrowing {
                    try channel.pipeline.syncOperations.addHandler(Handler(script.value))
                }
            }
            .bind(host: "127.0.0.1", port: 0)
            .get()
        guard let port = channel.localAddress?.port, let node = NodeID("127.0.0.1:\(port)") else {
            preconditionFailure("a bound socket has an address")
        }
        return FakePeer(node: node, channel: channel, script: script)
    }

    /// How many requests have come. To be asked on the loop.
    var requestCount: Int { script.value.requestCount }

    func end() async throws { try await channel.close().get() }

    private final class Script {
        private var replies: [Reply]
        private(set) var requestCount = 0

        init(_ replies: [Reply]) { self.replies = replies }

        func next() -> Reply {
            requestCount += 1
            return replies.count > 1 ? replies.removeFirst() : replies[0]
        }
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart

        private let script: Script

        init(_ script: Script) { self.script = script }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            guard case .end = unwrapInboundIn(data) else { return }
            let reply = script.next()
            context.eventLoop.assumeIsolated().scheduleTask(in: reply.delay) {
                if reply.hangsUp { return context.close(promise: nil) }
                var headers = HTTPHeaders(reply.headers)
                headers.add(name: "Content-Length", value: String(reply.body.count))
                let head = HTTPResponseHead(
                    version: .http1_1, status: HTTPResponseStatus(statusCode: reply.status), headers: headers)
                context.write(self.wrapOutboundOut(.head(head)), promise: nil)
                context.write(
                    self.wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: reply.body)))), promise: nil)
                context.writeAndFlush(self.wrapOutboundOut(.end(nil)), promise: nil)
            }
        }
    }
}
