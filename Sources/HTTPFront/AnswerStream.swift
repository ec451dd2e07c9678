// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// An answer while it is being written: in pieces, each handed over only once the one before it has gone to the
/// channel, so that one piece at most waits here. Belongs to its connection's event loop.
final class AnswerStream {
    /// The connection ended before the answer did.
    struct Abandoned: Error {}

    /// What it is.
    enum Form {
        /// JSON of unknown length; what stands before the first piece.
        case json(opening: StaticString)
        /// Server-sent events: whole ones in each piece.
        case events
        /// The bytes that this answer's head tells of.
        case value(Answer)
    }

    let form: Form
    private var ending = ""
    private var pending: (piece: ByteBuffer, taken: EventLoopPromise<Void>)?
    /// In HTTP's chunks.
    private var isChunked = false
    private var hasPieces = false
    private var isAbandoned = false
    private var confirmation: EventLoopPromise<Void>?

    private(set) var hasBegun = false
    private(set) var isLast = false
    private(set) var isFinished = false
    private(set) var failure: (any Error)?

    var hasPending: Bool { pending != nil }

    init(_ form: Form) { self.form = form }

    // MARK: The producer's side

    /// Of JSON, members or elements, separated by commas; the promise is kept once the next may come.
    func push(_ piece: ByteBuffer, taken: EventLoopPromise<Void>) {
        guard !isAbandoned, pending == nil else { return taken.fail(Abandoned()) }
        if piece.readableBytes == 0 { return taken.succeed() }
        pending = (piece, taken)
    }

    /// - Parameter result: what stands behind the last piece, or why there is none.
    func finish(_ result: Result<String, any Error>) {
        switch result {
        case .success(let ending): self.ending = ending
        case .failure(let error): failure = error
        }
        isFinished = true
    }

    // MARK: The connection's side

    /// Writes the head.
    /// - Parameter endsConnection: whether nothing follows it in any case.
    func begin(for trait: RequestTrait, endsConnection: Bool, into out: inout ByteBuffer) {
        hasBegun = true
        switch form {
        case .json:
            isChunked = !trait.isHTTP10
            isLast = endsConnection || trait.isHTTP10
            AnswerEncoder.beginStream(
                isChunked: isChunked, isLast ? .close : .keepAlive, crossOrigin: trait.crossOrigin, into: &out)
        case .events:
            isChunked = !trait.isHTTP10
            // (It ends when one side leaves; and whoever asks for it asks for nothing behind it.)
            isLast = true
            AnswerEncoder.beginStream(.events, isChunked: isChunked, .close, into: &out)
        case .value(let answer):
            isLast = endsConnection
            // (Its body comes in pieces.)
            _ = AnswerEncoder.encode(
                answer, isHead: false, isLast ? .close : trait.isHTTP10 ? .keepAliveExplicitly : .keepAlive,
                crossOrigin: trait.crossOrigin, into: &out)
        }
    }

    /// As what it is counted once it is whole.
    var status: Answer.Status {
        switch form {
        case .json, .events: .ok
        case .value(let answer): answer.status
        }
    }

    /// Whether it counts as answered once it has begun: it goes on for as long as somebody looks.
    var isEndless: Bool {
        if case .events = form { true } else { false }
    }

    func takePending() -> ByteBuffer? {
        guard let pending else { return nil }
        self.pending = nil
        confirmation = pending.taken
        return pending.piece
    }

    /// What stands before a piece.
    func openFrame(_ piece: ByteBuffer, into out: inout ByteBuffer) {
        let before: StaticString
        switch form {
        case .json(let opening): before = hasPieces ? "," : opening
        case .events: before = ""
        case .value: return
        }
        if isChunked { AnswerEncoder.beginChunk(piece.readableBytes + before.utf8CodeUnitCount, into: &out) }
        out.writeStaticString(before)
        hasPieces = true
    }

    /// What stands behind a piece.
    func closeFrame(into out: inout ByteBuffer) {
        if isChunked { out.writeStaticString("\r\n") }
    }

    /// Asks for the next piece.
    func confirm() {
        confirmation?.succeed()
        confirmation = nil
    }

    func writeEnd(into out: inout ByteBuffer) {
        if case .events = form, isChunked { out.writeStaticString("0\r\n\r\n") }
        guard case .json(let opening) = form else { return }
        let end = (hasPieces ? "" : opening.description) + ending
        guard isChunked else {
            out.writeString(end)
            return
        }
        AnswerEncoder.beginChunk(end.utf8.count, into: &out)
        out.writeString(end)
        out.writeStaticString("\r\n0\r\n\r\n")
    }

    func abandon() {
        isAbandoned = true
        pending?.taken.fail(Abandoned())
        pending = nil
    }
}
