// SPDX-License-Identifier: Apache-2.0

internal import AccessControl
internal import Cluster
package import NIOCore
package import NIOHTTP1
private import KeyValue
internal import RequestTracing

/// One client's connection: takes what the decoder reads, has it done in the order of `AnswerQueue`, and writes the
/// answers as bytes. Belongs to its event loop.
///
/// Every request is answered exactly once, in order, or the connection ends. It ends in order: its last answer says so,
/// then this side's half is closed, and what the client still sends is thrown away for a moment, so that the answer is
/// not lost to a reset.
package final class HTTPFrontHandler: ChannelInboundHandler {
    package typealias InboundIn = HTTPServerRequestPart
    package typealias OutboundOut = ByteBuffer
    package typealias RequestID = AnswerQueue<FrontRequest>.ID

    // (Every request looks at what is `unchecked` here many times. None is ever lent to a call that might look at it
    // again: they are read or assigned at once, or lent to values that know nothing of this object.)

    let front: Front
    let side: ListeningSide
    /// Where this connection stands in the front's table.
    var place: Int?
    @exclusivity(unchecked) private(set) var context: ChannelHandlerContext?
    @exclusivity(unchecked) private var gate: InputGate?
    /// Where the other end is.
    lazy var remoteAddress = context?.channel.remoteAddress?.ipAddress.flatMap { IPAddress($0) }
    /// What the other end has proved of itself.
    var peerHandshake = PeerCalleeHandshake()

    // What comes in.
    @exclusivity(unchecked) var receiving = Receiving.nothing
    /// What is kept of its body. (Not beside the request: a buffer that has two owners is copied whole as it grows.)
    @exclusivity(unchecked) var body = ByteBuffer()
    /// Of the body that is being received.
    @exclusivity(unchecked) var receivedBytes = 0
    /// Its whole length; nil where it comes in chunks.
    @exclusivity(unchecked) var bodyLength: Int?
    var receivingSince = NIODeadline.uptimeNanoseconds(0)
    /// How many requests the decoder has read to their end: the gate compares.
    @exclusivity(unchecked) private(set) var endCount = 0
    /// Since when there are bytes of a head that is not whole.
    @exclusivity(unchecked) private var partialHeadSince: NIODeadline?
    /// No further request is read: the client said so, or what it sent can't be read.
    @exclusivity(unchecked) var isInputOver = false
    @exclusivity(unchecked) private var isInputClosed = false
    private var discardedBytes = 0

    // What is being done.
    @exclusivity(unchecked) var queue = AnswerQueue<FrontRequest>()
    var streams: [RequestID: AnswerStream] = [:]
    @exclusivity(unchecked) private var heldBytes = 0
    @exclusivity(unchecked) private var isAdvancing = false
    @exclusivity(unchecked) private var hasNews = false

    // What goes out.
    @exclusivity(unchecked) private var out = ByteBuffer()
    /// What the channel was given last, whose memory serves again once it is sent.
    @exclusivity(unchecked) private var given: ByteBuffer?
    /// Whether the channel was given something that it was not told to send.
    @exclusivity(unchecked) private var isUnflushed = false
    @exclusivity(unchecked) private var isReading = false
    @exclusivity(unchecked) private var isFlushAwaited = false
    @exclusivity(unchecked) private var isWritable = true
    @exclusivity(unchecked) var owesContinue = false
    @exclusivity(unchecked) private(set) var isEnding = false
    private var farewellUntil = NIODeadline.distantFuture
    @exclusivity(unchecked) private var lastActivity: NIODeadline
    @exclusivity(unchecked) private var sentBytes = 0
    private var drained: (bytes: Int, since: NIODeadline)
    /// Since when there has always been something to send, and how much the client had taken by then.
    private var sending: (bytes: Int, since: NIODeadline)?

    package init(_ front: Front, at side: ListeningSide = .everybody) {
        self.front = front
        self.side = side
        self.lastActivity = front.roughNow
        self.drained = (0, front.roughNow)
    }

    /// Adds what one connection needs to its pipeline.
    package static func addHandlers(
        to channel: any Channel, _ front: Front, at side: ListeningSide = .everybody
    ) throws {
        var limits = NIOHTTPDecoderLimitConfiguration()
        // The decoder counts the target among the fields and can't say which was too long; within these bounds we can.
        limits.maxHeaderFieldSize = 3 * Limits.requestTargetBytes
        limits.maxHeaderListSize = 3 * Limits.requestTargetBytes + Limits.requestHeaderBytes
        limits.maxHeaderFieldCount = 2 * Limits.requestHeaderFields
        let handler = HTTPFrontHandler(front, at: side)
        let gate = InputGate(handler)
        handler.gate = gate
        let pipeline = channel.pipeline.syncOperations
        // (Between gate and handler may be nothing but a decoder that neither writes nor cares for the end of a turn:
        // answers leave from the gate, and it tells the handler of turns.)
        try pipeline.addHandler(gate)
        try pipeline.addHandler(
            ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes, limitConfiguration: limits)))
        try pipeline.addHandler(handler)
    }

    // MARK: The connection's life

    package func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { front.add(self) }
    }

    package func channelActive(context: ChannelHandlerContext) {
        if place == nil { front.add(self) }
        lastActivity = front.roughNow
        context.fireChannelActive()
    }

    package func channelInactive(context: ChannelHandlerContext) {
        forgetAll()
        front.remove(self)
        context.fireChannelInactive()
    }

    package func handlerRemoved(context: ChannelHandlerContext) {
        forgetAll()
        front.remove(self)
        self.context = nil
        gate = nil
    }

    private func forgetAll() {
        isEnding = true
        queue.removeAll()
        body = ByteBuffer()
        receiving = .nothing
        for stream in streams.values { stream.abandon() }
        streams = [:]
        hold(-heldBytes)
    }

    package func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let event = event as? ChannelEvent, case .inputClosed = event else {
            return context.fireUserInboundEventTriggered(event)
        }
        isInputClosed = true
        isInputOver = true
        dropBody()
        receiving = .nothing
        if isEnding { closeOnceSent() } else { advance() }
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard error is HTTPParserError else { return context.close(promise: nil) }
        // After the end of the other side's bytes there may be half a request, which nobody waits for.
        guard !isEnding, !isInputOver else { return }
        isInputOver = true
        if !receiving.isAnswered { enqueue(ErrorAnswer.unreadable(error).closing, receiving.trait) }
        dropBody()
        receiving = .nothing
        advance()
    }

    // MARK: Reading

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        isReading = true
        guard !isEnding, !isInputOver else { return }
        switch unwrapInboundIn(data) {
        case .head(let head):
            partialHeadSince = nil
            received(head)
        case .body(let part): received(part)
        case .end:
            endCount += 1
            receivedEnd()
        }
    }

    /// A request that did not need the decoder.
    func received(whole request: FrontRequest, _ trace: RequestTrace?) {
        isReading = true
        hold(request.body.readableBytes)
        append(
            request, RequestTrait(kind: FrontMetrics.Kind(route: request.route, method: request.method), trace: trace))
        advance()
    }

    package func channelReadComplete(context: ChannelHandlerContext) {
        readIsComplete()
        context.fireChannelReadComplete()
    }

    /// What one turn has brought has been read.
    func readIsComplete() {
        isReading = false
        flush()
    }

    /// Whether another request may be read now.
    var takesInput: Bool {
        !isInputOver && !isEnding && isWritable && queue.count < Limits.pipelinedRequests
            && !(receiving.upload?.write.isFull ?? false)
    }

    /// There may be room for more of what is being received.
    func resumeReading() { gate?.resume() }

    /// The gate has handed over some bytes. Where they brought no request's end, and no body is expected, they are part
    /// of a head.
    func wasFed(hadEnd: Bool) {
        guard isBetweenRequests else { return }
        if hadEnd {
            partialHeadSince = nil
        } else if partialHeadSince == nil {
            partialHeadSince = front.roughNow
        }
    }

    /// The gate has thrown bytes away after the last answer.
    func discarded(_ count: Int) {
        discardedBytes += count
        if discardedBytes > Limits.discardedBodyBytes { context?.close(promise: nil) }
    }

    /// Whether the next byte belongs to a head.
    var isBetweenRequests: Bool {
        if case .nothing = receiving { true } else { false }
    }

    // MARK: Doing

    /// The answer of a request that is not begun.
    func enqueue(_ answer: Answer, _ trait: consuming RequestTrait) {
        trait.since = .now()
        queue.append(answer, trait)
        hold(answer.body.readableBytes)
    }

    /// The answer of a request that was begun, once.
    func complete(_ id: RequestID, _ answer: consuming Answer) {
        let bytes = answer.body.readableBytes
        guard queue.complete(id, answer) else { return }
        hold(bytes)
        advance()
    }

    /// Begins what may begin, and writes what can be written.
    func advance() {
        guard !isAdvancing else {
            hasNews = true
            return
        }
        isAdvancing = true
        repeat {
            hasNews = false
            // (In a crowd each connection has one read at a time: how much they bring is known only then.)
            while !isEnding, !queue.isRunning || !front.isCrowded, let (id, request) = queue.begin() {
                hold(-request.body.readableBytes)
                front.data.asking(for: queue.trace(of: id)) { perform(request, id) }
            }
            emit()
        } while hasNews && !isEnding
        isAdvancing = false
        if !isReading, !isFlushAwaited {
            isFlushAwaited = true
            front.flushSoon(self)
        }
    }

    /// Counts bytes that this connection makes the worker keep.
    func hold(_ bytes: Int) {
        heldBytes += bytes
        front.hold(bytes)
    }

    /// Of a request that is not going to be done.
    func dropBody() {
        hold(-body.readableBytes)
        body = ByteBuffer()
    }

    // MARK: Writing

    private func emit() {
        while isWritable, !isEnding {
            switch queue.takeFront() {
            case .none:
                if owesContinue {
                    owesContinue = false
                    AnswerEncoder.writeContinue(into: &out)
                }
                if isInputOver { end() }
                return
            case .unfinished(let id, let trait):
                guard let stream = streams[id], pump(stream, id, trait) else { return }
                // (In a crowd, what waits behind it has not begun.)
                hasNews = true
            case .answer(var answer, let trait):
                let time = front.metrics.answered(trait.kind, answer.status, answer.outcome, since: trait.since)
                front.log.answered(trait, answer.status, answer.outcome, after: time)
                hold(-answer.body.readableBytes)
                let isLast = answer.closes || trait.closes || isLast()
                let persistence: AnswerEncoder.Persistence =
                    isLast ? .close : trait.isHTTP10 ? .keepAliveExplicitly : .keepAlive
                if trait.wantsProblems { answer = answer.asProblem }
                if let body = AnswerEncoder.encode(
                    answer, isHead: trait.isHead, persistence, crossOrigin: trait.crossOrigin, into: &out)
                {
                    writeOut()
                    write(body)
                } else if out.readableBytes > Front.writtenBytes {
                    writeOut()
                }
                if isLast { end() }
            }
        }
    }

    /// Whether there is no other request than the one whose answer is at hand: a worker that leaves says so on the last
    /// answer of what it has read, and so does one whose client sends nothing more.
    /// - Parameter waiting: whether that one is in the queue still: 1, or 0.
    private func isLast(waiting: Int = 0) -> Bool {
        guard front.isLeaving || isInputOver, queue.count == waiting, case .nothing = receiving else { return false }
        return true
    }

    /// Writes what a stream has; true once it is done and the next answer's turn has come.
    private func pump(_ stream: AnswerStream, _ id: RequestID, _ trait: RequestTrait) -> Bool {
        if let error = stream.failure {
            streams[id] = nil
            if stream.hasBegun {
                // What was sent already can't be taken back: without its end, the client sees that it is not whole.
                if !stream.isEndless { count(stream, trait, isBroken: true) }
                flushNow()
                context?.close(promise: nil)
                return false
            }
            return queue.complete(id, stream.isEndless ? busy : ErrorAnswer.unreadablePairs(error))
        }
        guard stream.hasPending || stream.isFinished else { return false }
        if !stream.hasBegun {
            // (It is in the queue until all of it is written.)
            stream.begin(for: trait, endsConnection: trait.closes || isLast(waiting: 1), into: &out)
            if stream.isEndless { count(stream, trait) }
        }
        if let piece = stream.takePending() {
            if !trait.isHead {
                stream.openFrame(piece, into: &out)
                writeOut()
                write(piece)
                stream.closeFrame(into: &out)
            }
            stream.confirm()
        }
        // (What confirms a piece may find out at once that there is no other one.)
        guard stream.isFinished, !stream.hasPending, stream.failure == nil else { return false }
        if !stream.isEndless { count(stream, trait) }
        if !trait.isHead { stream.writeEnd(into: &out) }
        streams[id] = nil
        queue.removeFront()
        if stream.isLast { end() }
        return true
    }

    private func count(_ stream: AnswerStream, _ trait: RequestTrait, isBroken: Bool = false) {
        let outcome: Answer.Outcome? = isBroken ? .unknown : nil
        let time = front.metrics.answered(trait.kind, stream.status, outcome, since: trait.since)
        front.log.answered(trait, stream.status, outcome, after: time, isBroken: isBroken)
    }

    /// Where answers leave: from the gate, for the decoder has no part in them; from here where there is none.
    private var outlet: ChannelHandlerContext? { gate?.context ?? context }

    private func write(_ bytes: ByteBuffer) {
        guard let context = outlet else { return }
        let count = bytes.readableBytes
        sentBytes += count
        isUnflushed = true
        guard count > Front.writtenBytes else { return context.write(wrapOutboundOut(bytes), promise: nil) }
        // It takes memory until the client has taken it, however long that is.
        front.hold(count)
        let sent = context.eventLoop.makePromise(of: Void.self)
        sent.futureResult.assumeIsolated().whenComplete { [front] _ in front.hold(-count) }
        context.write(wrapOutboundOut(bytes), promise: sent)
    }

    private func writeOut() {
        guard out.readableBytes > 0 else { return }
        // (Taken first: the channel may ask for more while it is given this.)
        let bytes = out
        out = ByteBuffer()
        if bytes.capacity <= Front.keptBytes { given = bytes }
        write(bytes)
    }

    private func flushNow() {
        writeOut()
        guard isUnflushed else { return }
        isUnflushed = false
        outlet?.flush()
        guard var sent = given else { return }
        given = nil
        // (Where the channel still holds it, this is other memory.)
        sent.clear()
        if out.capacity == 0 { out = sent }
    }

    func flush() {
        isFlushAwaited = false
        lastActivity = front.roughNow
        flushNow()
        gate?.resume()
    }

    package func channelWritabilityChanged(context: ChannelHandlerContext) {
        isWritable = context.channel.isWritable
        // What waits in the channel has to be on its way, or nothing would ever tell that there is room again.
        if isWritable { advance() } else { context.flush() }
        context.fireChannelWritabilityChanged()
    }

    // MARK: Ending

    /// The last answer has been written.
    private func end() {
        guard let context, !isEnding else { return }
        forgetAll()
        farewellUntil = front.loop.now + front.patience.farewell
        flushNow()
        if isInputClosed { closeOnceSent() } else { context.close(mode: .output, promise: nil) }
        gate?.resume()
    }

    /// Both sides are done with the connection, but for bytes that may wait in the channel.
    private func closeOnceSent() {
        guard let context else { return }
        let sent = context.eventLoop.makePromise(of: Void.self)
        sent.futureResult.assumeIsolated().whenComplete { _ in self.context?.close(promise: nil) }
        context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: sent)
    }

    /// Looks at the deadlines.
    func sweep(_ now: NIODeadline) {
        guard let context else { return }
        let waitingBytes = waitingBytes(context)
        if isStuck(waitingBytes, now) { return context.close(promise: nil) }
        if isEnding {
            if waitingBytes > 0 { farewellUntil = now + front.patience.farewell }
            if now >= farewellUntil { context.close(promise: nil) }
            return
        }
        if !takesInput {
            // It is this side that does not read.
            receivingSince = now
            partialHeadSince = partialHeadSince.map { _ in now }
        }
        if isLate(now) {
            isInputOver = true
            dropBody()
            if !receiving.isAnswered { enqueue(ErrorAnswer.tooSlow, receiving.trait) }
            receiving = .nothing
            advance()
        } else if case .nothing = receiving, queue.isEmpty, partialHeadSince == nil {
            let idle = front.isLeaving ? front.patience.idleWhileLeaving : front.patience.idle
            if now - lastActivity > idle + Front.sweepInterval { context.close(promise: nil) }
        }
    }

    /// Whether a request takes too long to arrive.
    private func isLate(_ now: NIODeadline) -> Bool {
        let patience = front.patience
        if case .nothing = receiving { return partialHeadSince.map { now - $0 > patience.head } ?? false }
        if receiving.upload?.write.isLate(now) ?? false { return true }
        let allowance = TimeAmount.seconds(Int64(receivedBytes / max(1, patience.bodyBytesPerSecond)))
        return now - receivingSince > patience.body + allowance
    }

    /// Bytes that the channel could not send yet.
    private func waitingBytes(_ context: ChannelHandlerContext) -> Int {
        guard sentBytes != drained.bytes else { return 0 }
        return (try? context.channel.syncOptions?.getOption(ChannelOptions.bufferedWritableBytes)) ?? 0
    }

    /// Whether the client has taken nothing of what waits for it for too long; or, while the front has its fill and
    /// others are refused for it, little.
    private func isStuck(_ waitingBytes: Int, _ now: NIODeadline) -> Bool {
        if waitingBytes == 0 {
            sending = nil
        } else {
            let (before, since) = sending ?? (sentBytes - waitingBytes, now)
            sending = (before, since)
            let taken = sentBytes - waitingBytes - before
            let allowance = TimeAmount.seconds(Int64(taken / max(1, front.patience.bodyBytesPerSecond)))
            if front.isFull, now - since > front.patience.body + allowance { return true }
        }
        if waitingBytes == 0 || sentBytes - waitingBytes != drained.bytes {
            drained = (sentBytes - waitingBytes, now)
            return false
        }
        return now - drained.since > front.patience.write
    }
}
