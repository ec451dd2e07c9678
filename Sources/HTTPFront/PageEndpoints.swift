// SPDX-License-Identifier: Apache-2.0

internal import Cluster
internal import HashRing
private import KeyValue
private import Listening
internal import NIOCore
private import RingPage

/// What the page at `/ui` consists of, and what it asks for (docs/ring-page.md).
extension HTTPFrontHandler {
    /// A file of the page. Whoever has it already, by its tag, is told so.
    func showPage(_ request: FrontRequest, _ id: RequestID) {
        guard let file = PageFile.all[String(request.target.prefix(request.pathLength))] else {
            return complete(id, ErrorAnswer.unknownPath)
        }
        if case .versions(let held)? = request.precondition.ifNoneMatch, held.contains(file.version) {
            return complete(id, .notModified(file.version))
        }
        complete(id, Answer(.ok, file.type, file.body, version: file.version))
    }

    /// The ring and all its nodes, told again and again until the client has enough or this worker leaves.
    func watchRing(_ id: RequestID) {
        if queue.isHead(id) { return complete(id, Answer(.ok, .events, ByteBuffer())) }
        let operators = front.operators
        let loop = front.loop
        let bound = NIOLoopBound(front, eventLoop: loop)
        // A page that does not read is to be seen by what waits here, not hidden by what the socket takes in advance.
        if let channel = context?.channel { ConnectionServer.sendAtOnce(channel) }
        stream(id, AnswerStream(.events), .watch) { push in
            try await operators.watchRing { event in
                try await push(event)
                return try await loop.submit { !bound.value.isLeaving }.get()
            }
            return ""
        }
    }

    /// What a change would move: `/plan/` before the path that would make it.
    func planChange(_ request: FrontRequest, _ id: RequestID) {
        let path: String = "/" + request.pathRest(after: RouteTable.planPrefix)
        let wanted: Result<ChangeRequest, Refusal> =
            if let rest = path.rest(after: RouteTable.addNodePrefix) {
                added(request, rest)
            } else if let rest = path.rest(after: RouteTable.removeNodePrefix) {
                removed(rest)
            } else if let rest = path.rest(after: RouteTable.replaceNodePrefix) {
                replaced(rest)
            } else {
                .failure(Refusal(answer: ErrorAnswer.unknownPath))
            }
        switch wanted {
        case .failure(let refusal): complete(id, refusal.answer)
        case .success(let change):
            let operators = front.operators
            handOver(id, .look) {
                do throws(OperatorError) {
                    return .json(try await operators.plan(change))
                } catch {
                    return ErrorAnswer.operation(error)
                }
            }
        }
    }

    /// What each node that holds a key has of it.
    func tellCopies(_ request: FrontRequest, _ id: RequestID) {
        let key: Key
        switch queriedKey(request) {
        case .failure(let refusal): return complete(id, refusal.answer)
        case .success(let found): key = found
        }
        guard let holders = front.data.holders(of: key) else { return complete(id, withoutRing) }
        // (This node's own is read on its own lanes, not by way of the network, and while the others are asked.)
        let operators = front.operators
        let here = front.loop.makePromise(of: Envelope?.self)
        front.data.readHere(StoredKey(key)) { here.completeWith($0.mapError { $0 as any Error }) }
        handOver(id, .look) {
            .json(
                await operators.copies(of: key, at: holders) {
                    do {
                        return .success(try await here.futureResult.get())
                    } catch {
                        return .failure(error as? OperationFailure ?? .notApplied(.memcachedUnavailable))
                    }
                })
        }
    }
}

extension String {
    /// Nil where it does not begin so.
    fileprivate func rest(after prefix: StaticString) -> Substring? {
        let prefix = prefix.description
        return hasPrefix(prefix) ? dropFirst(prefix.count) : nil
    }
}

/// A file of the page as it is answered.
private struct PageFile: Sendable {
    let type: Answer.ContentType
    let body: ByteBuffer
    /// Made of the file's digest: a tag like any other.
    let version: Version

    static let all: [String: PageFile] = {
        var files = Dictionary(uniqueKeysWithValues: RingPage.files.map { ($0.path, PageFile($0)) })
        files["/ui/"] = files["/ui"]
        return files
    }()

    private init(_ file: RingPage) {
        type = .page(file.kind)
        body = ByteBuffer(bytes: file.bytes)
        version = Version(
            time: file.digest[..<8].reduce(0) { $0 << 8 | UInt64($1) },
            writer: file.digest[8..<12].reduce(0) { $0 << 8 | UInt32($1) })
    }
}
