// SPDX-License-Identifier: Apache-2.0

package import Cluster
package import HashRing
package import KeyValue
package import NIOCore
private import NIOHTTP1

/// Every answer that is not a success: its status, what it says of the request's outcome, and one line that says what
/// to do. Nothing else in this target decides on a status.
package enum ErrorAnswer {
    private static func refusal(
        _ status: Answer.Status, _ line: String, _ outcome: Answer.Outcome = .notApplied
    ) -> Answer {
        Answer(status, .text, ByteBuffer(string: line + "\n"), outcome: outcome)
    }

    // MARK: The request itself

    /// The original's answer for a pair that is not there.
    package static let missing = Answer(.notFound, .text, ByteBuffer(string: "N/A"), outcome: .notApplied)

    /// The same on the surface for programs.
    package static let noPair = refusal(.notFound, "There is no such pair.")

    package static let unknownPath = refusal(
        .notFound, "There is no such path here. Paths are compared as they are sent.")

    package static func wrongMethod(_ allowed: Methods) -> Answer {
        var answer = refusal(.methodNotAllowed, "This path takes \(allowed.allow).")
        answer.allowed = allowed
        return answer
    }

    package static let malformedTarget = refusal(
        .badRequest, "The request's target has to be a path that begins with / and has no bytes but ASCII's.")
    package static let targetTooLong = refusal(
        .targetTooLong, "The request's target is over \(Limits.requestTargetBytes) bytes.")
    package static let headersTooLarge = refusal(
        .headersTooLarge,
        "The headers are over \(Limits.requestHeaderBytes) bytes or \(Limits.requestHeaderFields) fields.")
    /// (Of such a request others may find another end.)
    package static let noHost = refusal(.badRequest, "An HTTP/1.1 request has one Host header.").closing
    package static let unknownExpectation = refusal(.expectationFailed, "Only 100-continue can be expected.")
    package static let tooSlow = refusal(.requestTimeout, "The request took too long to arrive.").closing
    package static let unknownCoding = refusal(.notImplemented, "A body comes plain or in chunks.").closing

    /// The bytes on the connection are no HTTP request; where the next one would begin can't be told.
    package static func unreadable(_ error: any Error) -> Answer {
        switch error as? HTTPParserError {
        case .headerOverflow?: headersTooLarge.closing
        case .invalidVersion?: refusal(.versionNotSupported, "This is an HTTP/1.1 server.").closing
        default: refusal(.badRequest, "This is not an HTTP/1.1 request.").closing
        }
    }

    package static func bodyTooLarge(_ limit: Int) -> Answer {
        refusal(.contentTooLarge, "The body is over \(limit) bytes.")
    }

    // MARK: Who asks

    package static func noToken(_ door: String) -> Answer {
        refusal(.unauthorized, "This needs the \(door) token: Authorization: Bearer ….")
    }
    package static let dataTokenOnly: Answer = {
        var answer = refusal(.forbidden, "This needs the admin token; the data token is for pairs alone.")
        answer.wantsOtherToken = true
        return answer
    }()
    package static let operatorElsewhere = refusal(
        .forbidden,
        "Without an admin token only this machine may ask for this, by its loopback address; see adminTokenFile.")
    package static let maybeForged = refusal(
        .forbidden,
        "A browser may have been made to send this (Origin, Referer, Sec-Fetch-…, Purpose); set an admin token, and send it."
    )
    package static let changeByGet = refusal(
        .forbidden,
        "Without an admin token whoever is not on this machine asks for this by POST: a page can have a browser send a GET."
    )
    package static let foreignPage = refusal(
        .forbidden, "A page of another origin may change pairs only where corsOrigins names it.")
    package static let noPeer = refusal(
        .forbidden, "This is for nodes alone, at the addresses that peers allows."
    ).closing
    package static let unprovenPeer = refusal(
        .unauthorized, "The other end of this connection has not proved that it is a node of this cluster."
    ).closing
    package static let uncertifiedPeer = refusal(
        .unauthorized, "Your certificate is not for the address at which you say you are.")
    package static let noSecret = refusal(.notFound, "This node has no peer token to prove anything by.")
    package static let noHello = refusal(
        .badRequest, "This is no hello, or one to another node, or not the connection's first.")
    package static func foreignAddress(_ node: NodeID) -> Answer {
        refusal(.forbidden, "\(node) is not where nodes may be; peers in the configuration says where that is.")
    }

    package static func noPeerPort(_ node: NodeID, _ offset: Int) -> Answer {
        refusal(
            .badRequest,
            "\(node) leaves no port for its peers, who call it \(offset) above that (peerPortOffset): ports end at 65535."
        )
    }

    // MARK: Keys and values

    package static let noKey = refusal(.badRequest, "The request needs a key: key=…, percent-encoded and not empty.")
    package static let noValue = refusal(.badRequest, "The form needs a value: key=…&val=…, percent-encoded.")
    package static let badTimeToLive = refusal(
        .badRequest, "A time to live is a whole number of seconds from 1 to \(Limits.timeToLiveSeconds): ttl=60.")
    package static let badConsistency = refusal(
        .badRequest, "The consistency of a request is strict or sloppy: consistency=strict.")
    package static let badQuorum = refusal(
        .badRequest,
        "How many replicas must answer is a number from 1 to the ring's replicas: r=2 to read, w=2 to write.")
    package static let malformedField = refusal(
        .badRequest, "A percent sign has to be followed by two hexadecimal digits.")
    package static let keyTooLongInTarget = refusal(.targetTooLong, keyLine)
    package static let keyTooLongInForm = refusal(.contentTooLarge, keyLine)
    private static let keyLine = "The key is over \(Limits.keyBytes) bytes."

    package static func valueTooLarge(_ limit: Int) -> Answer {
        refusal(.contentTooLarge, "The value is over \(limit) bytes, the most that memcached takes under this key.")
    }

    package static let chunksMissing = retrying(
        refusal(.unavailable, "The value is large, and parts of it are not there. Try again in a second."))
    package static let largeInBatch = refusal(
        .contentTooLarge, "The value is too large for a batch. Read it by itself: GET /keys/….")

    package static let noKeyInPath = refusal(
        .badRequest, "The path needs a key: /keys/…, percent-encoded and not empty.")
    package static let dotSegment = refusal(
        .badRequest,
        "A part of the path is . or .., which many a client or proxy would take away; of a key, send it as %2E.")
    package static let badContentType = refusal(
        .badRequest, "A Content-Type is at most \(Limits.contentTypeBytes) bytes of printable ASCII.")
    package static let encodedContent = refusal(
        .unsupportedMediaType,
        "A Content-Encoding is not kept; store the value as it is, or encoded without that field.")
    package static let partialContent = refusal(
        .badRequest, "A value is stored as a whole: a PUT has no Content-Range.")
    package static let rangeNotSatisfiable = refusal(
        .rangeNotSatisfiable, "The value is shorter than the range begins at.")

    // MARK: Counters

    package static let badStep = refusal(
        .badRequest, "by is a whole number, such as 1 or -5, of at most 64 bits: /keys/…:increment?by=5.")
    package static let preconditionOnCounter = refusal(
        .badRequest, "An increment has its own condition, and takes no other.")
    package static func noNumber(_ held: Version) -> Answer {
        var answer = refusal(.conflict, "The value is no whole number in decimal digits.")
        answer.version = held
        return answer
    }
    package static func numberTooLarge(_ held: Version?) -> Answer {
        var answer = refusal(.conflict, "The number would not fit into 64 bits any more.")
        answer.version = held
        return answer
    }

    // MARK: Batches

    package static func badBatchRequest(_ reason: String) -> Answer {
        refusal(
            .badRequest,
            sentence("this is no batch: \(reason)")
                + " One is {\"operations\":[{\"method\":\"get\",\"key\":\"…\"},…]}; see openapi.yaml.")
    }
    package static let badBatchSize = refusal(
        .badRequest, "A batch has from 1 to \(Limits.clientBatchOperations) operations.")
    package static let keyTwiceInBatch = refusal(
        .badRequest, "A batch names each key once: its operations are done in no order.")
    package static let noKeyInBatch = refusal(
        .badRequest,
        "An operation has a key, or a keyBase64, and not both, of 1 to \(Limits.keyBytes) bytes.")
    package static let badBatchValue = refusal(
        .badRequest,
        "A put has a value, or a valueBase64, and not both; contentType and ttl are for a put alone.")
    package static let batchAnswerTooLarge = refusal(
        .contentTooLarge, "The batch's answer has no room for this value any more; ask for it by itself.")

    // MARK: All pairs

    package static let badListLimit = refusal(
        .badRequest, "A page has from 1 to \(Limits.listPagePairs) pairs: limit=1000.")
    package static let badCursor = refusal(
        .badRequest, "A cursor is taken as the page before gave it; the first page has none.")
    package static let badImport = refusal(
        .badRequest, "These are no records as /keys:export gives them.")
    package static let chunksCollected = refusal(
        .conflict,
        "Parts of a large value are gone that were imported long before what names them. Import it again from its first record."
    )
    package static let importOfTheFuture = refusal(
        .badRequest,
        "A record's version is ahead of this node's clock, and would win over what is written until then; see the clocks of this node and of the one that wrote it."
    )

    // MARK: Conditions

    package static let badPrecondition = refusal(
        .badRequest,
        "If-Match and If-None-Match take * or a list of at most \(Limits.entityTags) entity tags: \"…\", W/\"…\".")
    package static let preconditionHere = refusal(
        .badRequest, "Conditions are for /route and /keys, where the key's first owner decides on them.")

    /// - Parameter held: the version of the pair; `Version.none` where there is none.
    package static func preconditionFailed(_ held: Version) -> Answer {
        var answer = refusal(
            .preconditionFailed,
            held == .none ? "There is no such pair." : "The pair is in another version than the request wants.")
        if held != .none { answer.version = held }
        return answer
    }

    // MARK: The store

    package static let noRing = retrying(
        refusal(
            .unavailable, "This node has no ring. POST one to /hash_ring, as deploy/reconfigure.sh does."))
    package static let unconfirmedRing = retrying(
        refusal(
            .unavailable,
            "This node's memcached does not answer, or none of the other nodes confirms the ring on its disk: see that they run, or POST that ring, or what is left of it, to /hash_ring."
        ))
    package static let overloaded = retrying(
        refusal(.unavailable, "Too much waits to be done already. Try again in a second."))
    package static let leaving = retrying(
        refusal(.unavailable, "This worker is being stopped. Try again on a new connection."))

    private static func retrying(_ answer: Answer) -> Answer {
        var answer = answer
        answer.retryAfter = true
        return answer
    }

    /// What the store answers when it did not do what was asked.
    package static func failure(_ failure: OperationFailure) -> Answer {
        switch failure {
        case .notApplied(let reason): storeFailure(reason, .notApplied)
        case .outcomeUnknown(let reason): storeFailure(reason, .unknown)
        case .tooFewHold(let count, let wanted, let reason):
            retrying(
                refusal(
                    reason == .outOfMemory || reason == .logFailed ? .insufficientStorage : .unavailable,
                    "Stored by \(count) of the \(wanted) replicas that it takes. \(reason.line)", .unknown))
        case .preconditionFailed(let held): preconditionFailed(held)
        // The store follows the ring by itself; it gave up because the ring kept moving.
        case .staleRing: retrying(refusal(.unavailable, "The ring is changing. Try again in a second."))
        }
    }

    private static func storeFailure(_ reason: OperationFailure.Reason, _ outcome: Answer.Outcome) -> Answer {
        let status: Answer.Status
        switch reason {
        case .outOfMemory, .logFailed: status = .insufficientStorage
        case .tooLarge: status = .contentTooLarge
        case .tooFewReplicas: status = .badRequest
        default: status = .unavailable
        }
        let answer = refusal(status, reason.line, outcome)
        return status == .unavailable ? retrying(answer) : answer
    }

    /// A test made it fail.
    package static func injected(_ outcome: Answer.Outcome) -> Answer {
        refusal(.unavailable, "A failpoint failed this request.", outcome)
    }

    // MARK: Rings and changes

    package static func badRing(_ reason: String) -> Answer {
        refusal(
            .badRequest,
            "\(reason); a ring is data={\"nodes\":[{\"ip\":\"ip:port\",\"key\":0…9999},…],\"standbys\":[\"ip:port\",…],\"replicas\":3}."
        )
    }

    package static let badPosition = refusal(
        .badRequest,
        "A position is a number from 0 to 9999, or auto, which picks some: /add_node/<position>/<ip:port>.")
    package static let badPositionCount = refusal(
        .badRequest,
        "A node has from 1 to \(PositionPicker.countLimit) positions: /add_node/auto/<ip:port>?positions=64.")
    package static let badWithout = refusal(
        .badRequest, "without is a list of ip:port between commas, beside force=1.")
    package static let badForce = refusal(.badRequest, "force is 1 or 0.")
    package static let badNode = refusal(.badRequest, "A node is named by its literal ip:port, such as 10.0.0.7:5000.")

    package static func operation(_ error: OperatorError) -> Answer {
        switch error {
        case .refused(let error): change(error)
        case .busy(let change): refusal(.conflict, sentence(change) + " Wait until it is over, or abort it.")
        case .ringsDisagree(let reason): refusal(.conflict, sentence(reason))
        case .nothingToAbort(let reason): refusal(.conflict, sentence(reason))
        case .aborted(let reason):
            // Undone: the ring is as it was before.
            refusal(.conflict, "The change was given up and undone: \(reason)")
        case .noRing: noRing
        case .unreachable(let reason): retrying(refusal(.unavailable, "Nothing was changed: \(reason)"))
        case .unknown(let reason): refusal(.unavailable, "How it ended is not known here: \(reason)", .unknown)
        }
    }

    private static func change(_ error: RingChangeError) -> Answer {
        switch error {
        case .alreadyMember(let node, let positions):
            let places = positions.map(\.description).joined(separator: ", ")
            let number = positions.count == 1 ? "" : "\(positions.count) positions: "
            return refusal(.conflict, "\(node) is in the ring already, at \(number)\(places). Remove it first.")
        case .positionTaken(let position, let node):
            return refusal(.conflict, "Position \(position) is taken by \(node). Choose another.")
        case .unknownNode(let node): return refusal(.notFound, "\(node) is not in the ring; see /hash_ring.")
        case .lastNode(let node):
            return refusal(.conflict, "\(node) is the last node of the ring. Add another one first.")
        case .tooManyNodes:
            return refusal(.conflict, "The ring has \(Ring.nodeLimit) nodes, the most that it may have.")
        case .nobodyLeft(let slots):
            return refusal(
                .conflict, "\(slots) slots would be left to nodes that are gone for good. Add another node first.")
        case .notEnoughPositions(let free):
            return refusal(.conflict, "Only \(free) of the ring's 10000 positions are free. Ask for fewer.")
        }
    }

    /// Texts that come from other parts begin small and may hold line breaks, which one line does not.
    private static func sentence(_ text: String) -> String {
        let line = text.split(whereSeparator: \.isNewline).joined(separator: " ")
        return line.prefix(1).uppercased() + line.dropFirst() + "."
    }

    // MARK: Between nodes

    package static func badBatch(_ error: PeerBatchError) -> Answer {
        refusal(.badRequest, "This is no batch of operations: \(error.description).")
    }

    /// The two nodes' rings differ; the answer carries this node's.
    package static func otherRing(_ document: ByteBuffer) -> Answer {
        Answer(.conflict, .json, document, outcome: .notApplied)
    }

    package static func peerCall(_ error: PeerCallError) -> Answer {
        switch error {
        case .unknownCall: refusal(.notFound, "There is no such call between nodes.")
        case .unreadable(let reason): refusal(.badRequest, sentence("the call can't be read: \(reason)"))
        case .failed(let reason): refusal(.unavailable, sentence(reason), .unknown)
        }
    }

    /// The pairs could not be read.
    package static func unreadablePairs(_ error: any Error) -> Answer {
        retrying(refusal(.unavailable, sentence("The pairs can't be read now: \(error)")))
    }

    // MARK: Health

    package static func notReady(_ reason: String) -> Answer { refusal(.unavailable, reason) }
}

extension Answer {
    /// The same, and then the connection ends.
    package var closing: Answer {
        var answer = self
        answer.closes = true
        return answer
    }
}
