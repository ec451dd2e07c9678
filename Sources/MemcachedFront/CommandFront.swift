// SPDX-License-Identifier: Apache-2.0

package import AccessControl
package import Cluster
private import KeyValue
package import Listening
package import NIOCore
package import TransportSecurity

/// What all connections of one worker share that speak memcached's protocol: the store, the bounds, and who has
/// something to send at the end of this tick. Belongs to one event loop.
package final class CommandFront {
    /// How long a client may take. Between commands it may take as long as it likes: clients keep their connections.
    package struct Patience: Sendable {
        /// From a command's first byte to its last, for a short value.
        package var command = TimeAmount.seconds(60)
        /// A longer value may take a second more for each of these bytes.
        package var valueBytesPerSecond = 64 << 10
        /// Without taking a single byte of what waits to be sent.
        package var write = TimeAmount.seconds(10)
        /// For the other side to end a connection that has had its last answer.
        package var farewell = TimeAmount.seconds(2)

        package init() {}
    }

    // (As with `CommandHandler`: what every command looks at is `unchecked`, for it is never lent to a call that might
    // look at it again.)

    package let loop: any EventLoop
    package let store: any PairStore
    package let patience: Patience
    /// What `version` says: some clients look at the first three numbers, and take them for memcached's.
    package let version: String
    let metrics: CommandMetrics
    let tokens: TokenSet?
    let room: ConnectionRoom
    let started = NIODeadline.now()
    /// Bytes that another front holds, which count for the same bound.
    @exclusivity(unchecked) package var heldElsewhere: () -> Int = { 0 }
    /// Called once the worker is leaving and its last connection is gone.
    package var onGone: () -> Void = {}

    @exclusivity(unchecked) package private(set) var isLeaving = false
    /// The time of the last sweep: good enough for deadlines of seconds, and free.
    @exclusivity(unchecked) package private(set) var roughNow: NIODeadline
    /// Bytes of values being received and of answers that wait; see `Limits.frontBytes`.
    @exclusivity(unchecked) package private(set) var heldBytes = 0

    private var connections: [CommandHandler] = []
    @exclusivity(unchecked) private var unflushed: [CommandHandler] = []
    @exclusivity(unchecked) private var isFlushScheduled = false
    private var isSweeping = false

    /// Answers are handed to the channel in pieces of about this many bytes, so that it can say when it has enough.
    static let writtenBytes = 32 << 10
    /// How late a deadline may be noticed.
    package static let sweepInterval = TimeAmount.milliseconds(250)
    /// The memcached whose protocol this is.
    private static let dialect = "1.6.45"

    /// - Parameters:
    ///   - version: of this program.
    ///   - tokens: one of which each connection has to begin with; nil: none.
    package init(
        loop: any EventLoop, store: any PairStore, version: String, patience: Patience = Patience(),
        metrics: CommandMetrics = CommandMetrics(), tokens: TokenSet? = nil, room: ConnectionRoom = ConnectionRoom()
    ) {
        self.loop = loop
        self.store = store
        self.version = "\(CommandFront.dialect)-kvserver-\(version)"
        self.patience = patience
        self.metrics = metrics
        self.tokens = tokens
        self.room = room
        self.roughNow = loop.now
    }

    /// Starts to accept clients on a descriptor that listens already, and serves them on the front's event loop.
    /// - Parameter tls: what secures the connections; nil: nothing does.
    package static func listen(
        _ front: NIOLoopBound<CommandFront>, listener: NIOBSDSocket.Handle, over tls: ServerTLS?
    ) async throws -> ConnectionServer {
        let room = try await front.eventLoop.submit { NIOLoopBound(front.value.room, eventLoop: front.eventLoop) }.get()
        return try await ConnectionServer.start(listener: listener, room: room, tls: tls) { channel in
            // Nothing else tells of a client whose machine is gone: connections may be silent for as long as they like.
            try channel.syncOptions?.setOption(.socketOption(.so_keepalive), value: 1)
            try channel.pipeline.syncOperations.addHandler(CommandHandler(front.value))
        }
    }

    package var connectionCount: Int { connections.count }

    // MARK: Connections

    func add(_ connection: CommandHandler) {
        connection.place = connections.count
        connections.append(connection)
        room.enter()
        metrics.accept()
        startSweeping()
    }

    func remove(_ connection: CommandHandler) {
        guard let place = connection.place else { return }
        connection.place = nil
        let last = connections.removeLast()
        if last !== connection {
            connections[place] = last
            last.place = place
        }
        room.leave()
        if isLeaving, connections.isEmpty { onGone() }
    }

    /// Each connection ends once what it has begun is answered; the protocol has no word for it.
    package func leave() {
        guard !isLeaving else { return }
        isLeaving = true
        if connections.isEmpty { return onGone() }
        for connection in connections { connection.leave() }
    }

    func hold(_ bytes: Int) { heldBytes += bytes }

    var isFull: Bool { heldBytes + heldElsewhere() > Limits.frontBytes }

    // MARK: The end of the tick

    /// What was answered outside of a read is sent at the end of this tick, together with what else comes until then.
    func flushSoon(_ connection: CommandHandler) {
        unflushed.append(connection)
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        loop.assumeIsolated().execute {
            self.isFlushScheduled = false
            let connections = self.unflushed
            self.unflushed.removeAll(keepingCapacity: true)
            for connection in connections { connection.flush() }
        }
    }

    // MARK: Deadlines

    /// One timer for all connections, not several for each command.
    private func startSweeping() {
        guard !isSweeping else { return }
        isSweeping = true
        roughNow = loop.now
        scheduleSweep()
    }

    private func scheduleSweep() {
        loop.assumeIsolated().scheduleTask(in: CommandFront.sweepInterval) {
            guard !self.connections.isEmpty else {
                self.isSweeping = false
                return
            }
            self.roughNow = self.loop.now
            // A connection that closes leaves the table.
            for connection in self.connections { connection.sweep(self.roughNow) }
            self.scheduleSweep()
        }
    }
}
