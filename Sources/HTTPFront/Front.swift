// SPDX-License-Identifier: Apache-2.0

internal import AccessControl
package import Cluster
package import HashRing
package import KeyValue
package import Listening
private import Logging
package import NIOCore
package import Tracing

/// What all connections of one worker share: the store, the clock, the bounds, and who has something to send at the end
/// of this tick. Belongs to one event loop.
package final class Front {
    /// How long a client may take; all are absolute times, not pauses between bytes, but for the idle ones.
    package struct Patience: Sendable {
        /// From a request's first byte to the end of its head.
        package var head = TimeAmount.seconds(5)
        /// From there to the body's end, for a short body.
        package var body = TimeAmount.seconds(5)
        /// A longer body may take a second more for each of these bytes.
        package var bodyBytesPerSecond = 64 << 10
        /// Between an answer and the next request. HAProxy closes its idle connections sooner.
        package var idle = TimeAmount.seconds(10)
        /// Between an answer and the next request, once the worker is leaving.
        package var idleWhileLeaving = TimeAmount.seconds(3)
        /// Without taking a single byte of what waits to be sent. (While the worker holds all the bytes that it may,
        /// answers have as long as bodies.)
        package var write = TimeAmount.seconds(10)
        /// For the other side to end a connection that has had its last answer.
        package var farewell = TimeAmount.seconds(2)

        package init() {}
    }

    // (As with `HTTPFrontHandler`: what every request looks at is `unchecked`, for it is never lent to a call that
    // might look at it again.)

    package let node: NodeID
    package let loop: any EventLoop
    package let data: any DataService
    package let operators: any OperatorService
    package let tasks: any OperatorTasks
    package let failpoints: Failpoints
    package let patience: Patience
    /// Who is let in; nil: everybody.
    @exclusivity(unchecked) package var gate: AccessGate?
    /// Whether other nodes show certificates, which then have to be for the addresses that they say they are at.
    package var hasPeerCertificates = false
    /// Whose pages may use `/keys` from a browser; nil: nobody's.
    package var origins: OriginList?
    /// How long a large value may take to arrive and be stored.
    package var uploadTime = TimeAmount.seconds(Int64(Limits.uploadSeconds))
    let metrics: FrontMetrics
    let log: RequestLog
    /// For requests of sampled traces; nil: nobody wants spans.
    package var tracer: (any Tracer)?
    /// One line that says why this worker can't serve yet, beyond what `data` knows; nil where nothing is wrong.
    package var obstacle: () -> String? = { nil }
    /// How far this host is, whose memory was lost: it serves, and asks others for what it lacks. Nil where it lacks
    /// nothing.
    package var recovery: () -> String? = { nil }
    /// Called once the worker is leaving and its last connection is gone.
    package var onGone: () -> Void = {}

    /// Bytes that another front holds, which count for the same bound.
    @exclusivity(unchecked) package var heldElsewhere: () -> Int = { 0 }
    /// For connections, these and any other front's.
    let room: ConnectionRoom

    @exclusivity(unchecked) package private(set) var isLeaving = false
    /// The time of the last sweep: good enough for deadlines of seconds, and free.
    @exclusivity(unchecked) package private(set) var roughNow: NIODeadline
    /// Bytes of bodies being received and of answers that wait or are being sent; see `Limits.frontBytes`.
    @exclusivity(unchecked) package private(set) var heldBytes = 0

    /// Reads whose values have not come yet, and how many bytes one has brought of late, on average: they will be held.
    @exclusivity(unchecked) private var readsUnderWay = 0
    @exclusivity(unchecked) private var bytesOfRead = 0

    private var connections: [HTTPFrontHandler] = []
    @exclusivity(unchecked) private var unflushed: [HTTPFrontHandler] = []
    @exclusivity(unchecked) private var isFlushScheduled = false
    private var isSweeping = false

    /// Answers are handed to the channel in pieces of about this many bytes, so that it can say when it has enough.
    static let writtenBytes = 32 << 10
    /// As much memory as this a connection keeps for its next answer: one of a short value, with its head.
    static let keptBytes = 1 << 10
    /// How late a deadline may be noticed.
    package static let sweepInterval = TimeAmount.milliseconds(250)

    package init(
        node: NodeID, loop: any EventLoop, data: any DataService, operators: any OperatorService,
        tasks: any OperatorTasks, failpoints: Failpoints = .disabled, patience: Patience = Patience(),
        metrics: FrontMetrics = FrontMetrics(), room: ConnectionRoom = ConnectionRoom(), log: RequestLog? = nil
    ) {
        self.room = room
        self.node = node
        self.loop = loop
        self.data = data
        self.operators = operators
        self.tasks = tasks
        self.failpoints = failpoints
        self.patience = patience
        self.metrics = metrics
        self.log = log ?? RequestLog(Logger(label: "none") { _ in SwiftLogNoOpLogHandler() }, slow: nil, loop: loop)
        self.roughNow = loop.now
    }

    package var connectionCount: Int { connections.count }

    // MARK: Connections

    func add(_ connection: HTTPFrontHandler) {
        connection.place = connections.count
        connections.append(connection)
        room.enter()
        metrics.accept()
        startSweeping()
    }

    func remove(_ connection: HTTPFrontHandler) {
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

    /// From now on each connection ends with its next answer, or once it has been idle for a moment.
    package func leave() {
        guard !isLeaving else { return }
        isLeaving = true
        if connections.isEmpty { onGone() }
    }

    func hold(_ bytes: Int) { heldBytes += bytes }

    var isFull: Bool { heldBytes + heldElsewhere() + readsUnderWay * bytesOfRead > Limits.frontBytes }

    /// Whether so many reads are under way that no connection should have several.
    var isCrowded: Bool { readsUnderWay >= Front.crowd }

    func beginRead() { readsUnderWay += 1 }

    /// - Parameter bytes: that it has brought.
    func endRead(_ bytes: Int) {
        readsUnderWay -= 1
        bytesOfRead += (bytes - bytesOfRead) / Front.rememberedReads
    }

    private static let crowd = 128
    /// Of about so many reads the average is made.
    private static let rememberedReads = 32

    // MARK: The end of the tick

    /// What was answered outside of a read is sent at the end of this tick, together with what else comes until then.
    func flushSoon(_ connection: HTTPFrontHandler) {
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

    /// One timer for all connections, not several for each request.
    private func startSweeping() {
        guard !isSweeping else { return }
        isSweeping = true
        roughNow = loop.now
        scheduleSweep()
    }

    private func scheduleSweep() {
        loop.assumeIsolated().scheduleTask(in: Front.sweepInterval) {
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
