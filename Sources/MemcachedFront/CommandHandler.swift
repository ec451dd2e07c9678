// SPDX-License-Identifier: Apache-2.0

private import Cluster
private import KeyValue
package import NIOCore

/// One connection that speaks memcached's protocol: has what the parser reads done in the order of `CommandQueue`, and
/// writes the answers as bytes. Belongs to its event loop.
///
/// Every command is answered exactly once, in order, but for those that want no answer, or the connection ends. It ends
/// in order: after its last answer this side's half is closed, and what the client still sends is thrown away for a
/// moment, undone, so that the answer is not lost to a reset.
package final class CommandHandler: ChannelDuplexHandler {
    package typealias InboundIn = ByteBuffer
    package typealias OutboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer
    typealias CommandID = CommandQueue.ID

    // (Every command looks at what is `unchecked` here many times. None is ever lent to a call that might look at it
    // again: they are read or assigned at once, or lent to values that know nothing of this object.)

    let front: CommandFront
    /// Where this connection stands in the front's table.
    var place: Int?
    @exclusivity(unchecked) private var context: ChannelHandlerContext?

    // What comes in.
    @exclusivity(unchecked) private var parser = CommandParser()
    @exclusivity(unchecked) private var input = ByteBuffer()
    /// Of `input`, as the front counts it.
    @exclusivity(unchecked) private var heldInput = 0
    /// Since when there are bytes of a command that is not whole, and how many have come since.
    @exclusivity(unchecked) private var partial: (since: NIODeadline, bytes: Int)?
    /// Commands wait in `input` until others are answered.
    @exclusivity(unchecked) private var isBacklogged = false
    /// Of commands that are not done.
    @exclusivity(unchecked) private var valueBytes = 0
    @exclusivity(unchecked) private var isInputOver = false
    /// Whether this client has shown a token, or none is asked for.
    @exclusivity(unchecked) private var isAdmitted: Bool
    @exclusivity(unchecked) private var isInputClosed = false
    @exclusivity(unchecked) private var wantsRead = false
    @exclusivity(unchecked) private var isReading = false

    // What is being done.
    @exclusivity(unchecked) private var queue = CommandQueue()
    @exclusivity(unchecked) private var gets: [CommandID: GetRun] = [:]
    /// Single values that are given out in pieces, and what their commands take until then.
    @exclusivity(unchecked) private var streams: [CommandID: (stream: ValueStream, heldBytes: Int)] = [:]
    @exclusivity(unchecked) private var heldBytes = 0
    @exclusivity(unchecked) private var isAdvancing = false
    @exclusivity(unchecked) private var hasNews = false

    // What goes out.
    @exclusivity(unchecked) private var out = ByteBuffer()
    /// Whether the channel was given something that it was not told to send.
    @exclusivity(unchecked) private var isUnflushed = false
    @exclusivity(unchecked) private var isFlushAwaited = false
    @exclusivity(unchecked) private var isWritable = true
    @exclusivity(unchecked) private var isEnding = false
    private var farewellUntil = NIODeadline.distantFuture
    @exclusivity(unchecked) private var sentBytes = 0
    private var drained: (bytes: Int, since: NIODeadline)

    package init(_ front: CommandFront) {
        self.front = front
        self.isAdmitted = front.tokens == nil
        self.drained = (0, front.roughNow)
    }

    // MARK: The connection's life

    package func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { begin() }
    }

    package func channelActive(context: ChannelHandlerContext) {
        if place == nil { begin() }
        context.fireChannelActive()
    }

    private func begin() {
        front.add(self)
        if front.isLeaving { leave() }
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
    }

    private func forgetAll() {
        isEnding = true
        queue.removeAll()
        for run in gets.values { run.abandon() }
        gets = [:]
        streams = [:]
        input = ByteBuffer()
        partial = nil
        heldInput = 0
        valueBytes = 0
        hold(-heldBytes)
    }

    package func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let event = event as? ChannelEvent, case .inputClosed = event else {
            return context.fireUserInboundEventTriggered(event)
        }
        isInputClosed = true
        if isEnding { closeOnceSent() } else { advance() }
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    /// The worker leaves: ends once everything that was read is answered. (Half a command is none.)
    func leave() {
        guard !isEnding else { return }
        advance()
    }

    // MARK: Reading

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isEnding else { return }
        isReading = true
        var bytes = unwrapInboundIn(data)
        partial?.bytes += bytes.readableBytes
        if input.readableBytes == 0 {
            input = bytes
        } else {
            // (What was read of it long ago would be kept for as long as each read ends in the middle of a command.)
            if input.readerIndex > CommandFront.writtenBytes { input.discardReadBytes() }
            input.writeBuffer(&bytes)
        }
        advance()
    }

    package func channelReadComplete(context: ChannelHandlerContext) {
        isReading = false
        flush()
        context.fireChannelReadComplete()
    }

    package func read(context: ChannelHandlerContext) {
        if takesInput { context.read() } else { wantsRead = true }
    }

    /// Whether more may be read now.
    private var takesInput: Bool { isEnding || isWritable && takesCommands }

    private var takesCommands: Bool {
        queue.count < Limits.pipelinedCommands && valueBytes < Limits.clientBatchBytes
    }

    private func resumeReading() {
        guard wantsRead, takesInput else { return }
        wantsRead = false
        context?.read()
    }

    /// Takes commands from what has come, as many as may be pending.
    private func parse() {
        let isFull = front.isFull
        // (It may change from one command to the next.)
        var room: CommandParser.Room {
            CommandParser.Room(
                valueBytes: isAdmitted ? front.store.itemBytes : Limits.credentialBytes, isFull: isFull)
        }
        while !isEnding, !isInputOver, takesCommands, let event = parser.next(in: &input, room) {
            let now = NIODeadline.now()
            partial = nil
            switch event {
            case .command(let command) where !isAdmitted:
                isAdmitted = front.tokens.map { Admission.isGranted(command, by: $0) } ?? true
                say(isAdmitted ? Admission.granted : Admission.refusal(command.verb), to: command.verb, since: now)
            case .command(let command):
                queue.append(command, since: now)
                holdValue(command.heldBytes)
                if case .quit = command.action { isInputOver = true }
            case .refused(let refusal) where !isAdmitted:
                say(Admission.refusal(refusal.verb), to: refusal.verb, since: now)
            case .refused(let refusal):
                refuse(refusal, since: now)
            case .hangUp:
                isInputOver = true
            }
        }
        if isInputOver { input = ByteBuffer() }
        hold(input.readableBytes - heldInput)
        heldInput = input.readableBytes
        isBacklogged = !isInputOver && heldInput > 0 && !takesCommands
        let isPartial = !isInputOver && !isBacklogged && (heldInput > 0 || !parser.isBetweenCommands)
        if !isPartial {
            partial = nil
        } else if partial == nil {
            partial = (front.roughNow, heldInput)
        }
    }

    /// Answers a command that is not done.
    private func refuse(_ refusal: CommandRefusal, since: NIODeadline) {
        say(CommandAnswer(refusal), to: refusal.verb, since: since)
    }

    private func say(_ answer: CommandAnswer, to verb: Command.Verb, since: NIODeadline) {
        if answer.closes { isInputOver = true }
        hold(answer.reply?.bytes ?? 0)
        queue.append(answer, CommandQueue.Trait(verb, since: since))
    }

    // MARK: Doing

    /// Begins what may begin, and writes what can be written.
    func advance() {
        guard !isAdvancing else {
            hasNews = true
            return
        }
        isAdvancing = true
        repeat {
            hasNews = false
            parse()
            while !isEnding, let (id, command) = queue.begin() { perform(command, id) }
            emit()
        } while hasNews && !isEnding
        isAdvancing = false
        if !isReading, !isFlushAwaited {
            isFlushAwaited = true
            front.flushSoon(self)
        }
    }

    private func perform(_ command: Command, _ id: CommandID) {
        switch command.action {
        case .say(let text):
            complete(
                id, command, CommandAnswer(.done, Reply(command.verb == .version ? "VERSION \(front.version)" : text)))
        case .quit: complete(id, command, CommandAnswer(.done, nil, closes: true))
        case .stats: complete(id, command, CommandAnswer(.done, statistics))
        case .get(let keys, withCas: let withCas, touch: let touch):
            let run = GetRun(keys, withCas: withCas, heldBytes: command.heldBytes) { key, completion in
                self.find(key, touch: touch, completion)
            }
            gets[id] = run
            ask(run)
        case .metaGet(let key, withValue: let withValue, unlessCas: let cas, touch: let touch):
            metaGet(key, withValue: withValue, unlessCas: cas, touch: touch, command, id)
        case .store(let key, let store): self.store(key, store, command, id)
        case .delete(let key, cas: let cas): delete(key, cas: cas, command, id)
        case .count(let key, let count): self.count(key, count, command, id)
        case .touch(let key, let expiry): touch(key, expiry, command, id)
        }
    }

    /// The answer of a command that was begun, once. What wants none is silent.
    func complete(_ id: CommandID, _ command: Command, _ answer: CommandAnswer) {
        var answer = answer
        if command.isQuiet, command.meta == nil { answer.reply = nil }
        guard queue.complete(id, answer) else { return }
        holdValue(-command.heldBytes)
        hold(answer.reply?.bytes ?? 0)
        advance()
    }

    /// Answers with a value that is read as it is sent, once it is the command's turn.
    func stream(_ value: ValueStream, _ command: Command, _ id: CommandID) {
        guard !isEnding else { return }
        streams[id] = (value, command.heldBytes)
        advance()
    }

    private func ask(_ run: GetRun) {
        // (One at a time while the worker holds as much as it may, so that what was begun comes to an end.)
        run.ask(front.isFull ? 1 : Limits.getWindow) { bytes in
            self.hold(bytes)
            self.advance()
        }
    }

    private func holdValue(_ bytes: Int) {
        valueBytes += bytes
        hold(bytes)
    }

    /// Counts bytes that this connection makes the worker keep.
    private func hold(_ bytes: Int) {
        heldBytes += bytes
        front.hold(bytes)
    }

    // MARK: Writing

    private func emit() {
        while isWritable, !isEnding {
            switch queue.front {
            case .none:
                // (Half a command is none.)
                if isInputOver || isInputClosed || front.isLeaving, !isBacklogged { end() }
                return
            case .unfinished(let id, let trait):
                if let (stream, bytes) = streams[id] {
                    guard pump(stream, trait) else { return }
                    streams[id] = nil
                    holdValue(-bytes)
                } else if let run = gets[id] {
                    guard pump(run, trait) else { return }
                    gets[id] = nil
                    holdValue(-run.heldBytes)
                } else {
                    return
                }
                queue.removeFront()
                // (A write may have waited for it.)
                hasNews = true
            case .answer(let answer, let trait):
                queue.removeFront()
                front.metrics.answered(trait.verb, answer.outcome, since: trait.since)
                if let reply = answer.reply {
                    hold(-reply.bytes)
                    write(reply)
                }
                if answer.closes { return end() }
            }
            // What was answered makes room for what waits.
            if isBacklogged { hasNews = true }
        }
    }

    /// Writes what a get has; true once it is all there.
    private func pump(_ run: GetRun, _ trait: CommandQueue.Trait) -> Bool {
        while isWritable {
            if let stream = run.stream {
                switch send(stream) {
                case .wait: return false
                case .end: run.stream = nil
                case .failure(let failure):
                    run.stream = nil
                    guard case .failure(_, let bytes) = run.giveUp(failure) else { return false }
                    hold(-bytes)
                    refuse(failure, trait, isCut: stream.hasBegun)
                    return !stream.hasBegun
                }
                continue
            }
            switch run.next() {
            case .wait:
                ask(run)
                return false
            case .none: ask(run)
            case .value(let reply, bytes: let bytes):
                hold(-bytes)
                write(reply)
                ask(run)
            case .large(let large, let key, let lines, bytes: let bytes):
                hold(-bytes)
                run.stream = ValueStream(large, of: key, behind: lines, front)
                ask(run)
            case .failure(let failure, bytes: let bytes):
                hold(-bytes)
                // What was sent already stays true; the client learns that the rest is not known.
                refuse(failure, trait, isCut: false)
                return true
            case .end:
                write(.end)
                front.metrics.answered(trait.verb, run.hasHit ? .hit : .miss, since: trait.since)
                return true
            }
        }
        return false
    }

    /// Writes what a value in chunks has, as the answer of a command; true once it is all there.
    private func pump(_ stream: ValueStream, _ trait: CommandQueue.Trait) -> Bool {
        switch send(stream) {
        case .wait: return false
        case .end:
            front.metrics.answered(trait.verb, .hit, since: trait.since)
            return true
        case .failure(let failure):
            refuse(failure, trait, isCut: stream.hasBegun)
            return !stream.hasBegun
        }
    }

    private enum Sent {
        /// For the next piece, or for room.
        case wait
        case end
        case failure(OperationFailure)
    }

    private func send(_ stream: ValueStream) -> Sent {
        while isWritable {
            let isFirst = !stream.hasBegun
            switch stream.next({ [weak self] in self?.advance() }) {
            case .wait: return .wait
            case .piece(let piece):
                if isFirst { write(stream.lines) }
                writeOut()
                write(piece)
            case .end:
                out.writeStaticString("\r\n")
                return .end
            case .failure(let failure): return .failure(failure)
            }
        }
        return .wait
    }

    /// Answers a command that can't be done, or not to its end.
    /// - Parameter isCut: whether the client waits for the rest of a value: it sees that it does not come.
    private func refuse(_ failure: OperationFailure, _ trait: CommandQueue.Trait, isCut: Bool) {
        let answer = CommandAnswer(failure)
        front.metrics.answered(trait.verb, answer.outcome, since: trait.since)
        if !isCut {
            if let reply = answer.reply { write(reply) }
            return
        }
        writeOut()
        context?.flush()
        context?.close(promise: nil)
    }

    private func write(_ reply: Reply) {
        if let value = reply.encode(into: &out) {
            writeOut()
            write(value)
            out.writeStaticString("\r\n")
        } else if out.readableBytes > CommandFront.writtenBytes {
            writeOut()
        }
    }

    private func write(_ bytes: ByteBuffer) {
        sentBytes += bytes.readableBytes
        isUnflushed = true
        context?.write(wrapOutboundOut(bytes), promise: nil)
    }

    private func writeOut() {
        guard out.readableBytes > 0 else { return }
        // (Taken first: the channel may ask for more while it is given this.)
        let bytes = out
        out = ByteBuffer()
        write(bytes)
    }

    func flush() {
        isFlushAwaited = false
        writeOut()
        if isUnflushed {
            isUnflushed = false
            context?.flush()
        }
        resumeReading()
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
        writeOut()
        context.flush()
        if isInputClosed { closeOnceSent() } else { context.close(mode: .output, promise: nil) }
        resumeReading()
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
        guard let partial else { return }
        // (Where it is this side that does not read, the client is not late.)
        if !takesInput { return self.partial = (now, partial.bytes) }
        let allowance = TimeAmount.seconds(Int64(partial.bytes / max(1, front.patience.valueBytesPerSecond)))
        guard now - partial.since > front.patience.command + allowance else { return }
        isInputOver = true
        let late = CommandRefusal(.none, "CLIENT_ERROR the command took too long to arrive", closes: true)
        refuse(late, since: now)
        advance()
    }

    /// Bytes that the channel could not send yet.
    private func waitingBytes(_ context: ChannelHandlerContext) -> Int {
        guard sentBytes != drained.bytes else { return 0 }
        return (try? context.channel.syncOptions?.getOption(ChannelOptions.bufferedWritableBytes)) ?? 0
    }

    /// Whether the client has taken nothing of what waits for it for too long.
    private func isStuck(_ waitingBytes: Int, _ now: NIODeadline) -> Bool {
        if waitingBytes == 0 || sentBytes - waitingBytes != drained.bytes {
            drained = (sentBytes - waitingBytes, now)
            return false
        }
        return now - drained.since > front.patience.write
    }
}
