// SPDX-License-Identifier: Apache-2.0

private import Glibc
private import KeyValue
package import NIOCore
private import NIOPosix

/// The worker's listening side: accepts clients on a socket that it was given, and serves them on the front's event
/// loop.
///
/// The socket is shared with the other workers of the host, so a worker that has its fill leaves new clients to them.
package final class FrontServer: Sendable {
    /// So few that clients who come all at once spread over the workers.
    private static let acceptsAtOnce: UInt = 2

    /// Linux's TCP_NOTSENT_LOWAT, which has no name in the packages: the socket takes no more while this much is not on
    /// its way, so that a slow reader costs little memory and can be told from one that does not read (tcp(7)).
    private static let unsentLowWater = NIOBSDSocket.Option(rawValue: 25)
    private static let unsentBytes: SocketOptionValue = 128 << 10

    private let listener: any Channel

    private init(_ listener: any Channel) { self.listener = listener }

    /// Starts to accept.
    /// - Parameters:
    ///   - listener: a descriptor that listens already. It is closed with `stopAccepting`, which leaves the socket to
    ///     its other owners.
    ///   - connections: how many there may be at once; by default `Limits.connectionsPerWorker`. Descriptors that the
    ///     process may open can be the tighter bound: see `Limits.descriptorsKept`.
    package static func start(
        _ front: NIOLoopBound<Front>, listener: NIOBSDSocket.Handle, connections: Int? = nil
    ) async throws -> FrontServer {
        let limit = connections ?? Limits.connectionsPerWorker
        let channel = try await ServerBootstrap(group: front.eventLoop, childGroup: front.eventLoop)
            .serverChannelOption(.maxMessagesPerRead, value: acceptsAtOnce)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptCap(front.value, limit))
                }
            }
            .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
            .childChannelOption(
                ChannelOptions.Types.SocketOption(level: .tcp, name: unsentLowWater), value: unsentBytes
            )
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try HTTPFrontHandler.addHandlers(to: channel, front.value) }
            }
            .withBoundSocket(listener)
            .get()
        return FrontServer(channel)
    }

    /// Accepts nobody any more; returns once the listening descriptor is closed. (That it was closed before is as
    /// good.)
    package func stopAccepting() async { try? await listener.close().get() }

    /// Waits with accepting while there are as many connections as there may be, and for a moment after an accept that
    /// failed. Who is not accepted waits in the socket, where another worker may take it.
    private final class AcceptCap: ChannelDuplexHandler {
        typealias InboundIn = any Channel
        typealias OutboundIn = any Channel

        /// How soon room is looked for that nobody has told of: descriptors that another part has closed, or a limit
        /// that was raised (`prlimit`).
        private static let pause = TimeAmount.milliseconds(100)

        private let front: Front
        private let limit: Int
        private var waiting: Scheduled<Void>?

        init(_ front: Front, _ limit: Int) {
            self.front = front
            self.limit = limit
        }

        private var hasRoom: Bool {
            front.connectionCount < limit && front.connectionCount < AcceptCap.descriptorsForConnections
        }

        /// Asked each time, for it may be changed while the process runs.
        private static var descriptorsForConnections: Int {
            var descriptors = rlimit()
            guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &descriptors) == 0 else { return .max }
            let count = Int(clamping: descriptors.rlim_cur)
            return count - Limits.descriptorsKept(of: count)
        }

        func handlerAdded(context: ChannelHandlerContext) {
            front.onRoom = {
                guard let waiting = self.waiting, self.hasRoom else { return }
                waiting.cancel()
                self.waiting = nil
                context.read()
            }
        }

        func handlerRemoved(context: ChannelHandlerContext) {
            front.onRoom = {}
            waiting?.cancel()
        }

        func read(context: ChannelHandlerContext) {
            if hasRoom { return context.read() }
            guard waiting == nil else { return }
            waiting = context.eventLoop.assumeIsolated().scheduleTask(in: AcceptCap.pause) {
                self.waiting = nil
                self.read(context: context)
            }
        }

        /// Most likely the machine has no descriptor left. The client is still there, and the read that failed is still
        /// wanted: NIO would try again at once, over and over. (Its AcceptBackoffHandler holds back the next one only.)
        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            let options = context.channel.syncOptions
            try? options?.setOption(.autoRead, value: false)
            context.eventLoop.assumeIsolated().scheduleTask(in: AcceptCap.pause) {
                try? options?.setOption(.autoRead, value: true)
            }
            context.fireErrorCaught(error)
        }
    }
}
